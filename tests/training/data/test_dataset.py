"""Training examples of prepared structures."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from foldcp.checkpoint.load import load
from foldcp.datasets.training.filters import FilterSettings
from foldcp.datasets.training.read import read_experimental
from foldcp.pipeline.training_data.prepare import PrepareSettings, prepare
from foldcp.training.data import complexes
from foldcp.training.data.dataset import TrainingDataset
from foldcp.training.data.prefetch import draw_or_replace, prefetch
from foldcp.training.data.prepared import IndexChain, IndexRow
from foldcp.training.data.sampling import ItemSampler, items_and_weights
from foldcp.training.data.settings import DataSettings
from foldcp.training.example import TrainingExample
from foldcp.training.gradients import require_gradients
from foldcp.training.settings import TrainingSettings
from foldcp.training.step import training_step
from tests.training.data.mmcif import Atom, File, codes, protein, real_structure, single_protein

REAL = ("1ake", "1lcd", "19hc", "3mht", "5kc1", "1ahsa", "7cfn", "3kpr")
SEQUENCE = "MKDAYIAFQRCHWEDYFTSGLVNPMKDAYIAFQRCHW"
SMALL = DataSettings(crop_tokens=24, crop_atoms=None, max_neighborhood=8, msa_rows=4)


def dimer(path: Path) -> Path:
    """Two copies of a chain side by side, another one across, and an ion far from the first."""
    atoms = [
        *protein("A", SEQUENCE, missing=(1, 7)),
        *protein("B", SEQUENCE, origin=(0, 6.5, 0), missing=(4,)),
        *protein("C", SEQUENCE[:20], entity="2", origin=(30, 13, 0)),
        Atom("ZN", "ZN", "Z", "3", None, (80, 19, 0), element="ZN", group="HETATM"),
    ]
    return File(atoms, {"1": codes(SEQUENCE), "2": codes(SEQUENCE[:20])}).write(path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two structures, one with an alignment, and one that is held out."""
    folder = tmp_path_factory.mktemp("data")
    dimer(folder / "in/dimer.cif")
    single_protein(SEQUENCE[::-1]).write(folder / "in/single.cif")
    single_protein(SEQUENCE[3:]).write(folder / "in/other.cif")
    (folder / "held_out.txt").write_text("other\n")
    rows = [SEQUENCE, *(SEQUENCE.replace(letter, "G") for letter in "MKDAYIF")]
    a3m = "".join(f">{i}\n{row}\n" for i, row in enumerate(rows))
    (folder / "msas").mkdir()
    (folder / f"msas/{sha256(SEQUENCE.encode()).hexdigest()}.a3m").write_text(a3m)
    prepare(
        folder / "in",
        folder / "out",
        PrepareSettings(),
        held_out=folder / "held_out.txt",
        msas=[folder / "msas"],
    )
    return folder / "out"


def assert_equal(a: TrainingExample, b: TrainingExample) -> None:
    assert a.name == b.name
    for first, second in ((a.features, b.features), (a.truth, b.truth)):
        for name, value in vars(first).items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(value, getattr(second, name), rtol=0, atol=0)
    assert a.truth.symmetries is not None and b.truth.symmetries is not None
    assert a.truth.symmetries.chains == b.truth.symmetries.chains


def differ(a: TrainingExample, b: TrainingExample) -> bool:
    return a.name != b.name or not torch.equal(a.features.ref_pos, b.features.ref_pos)


def test_example_is_a_function_of_the_seed(prepared: Path) -> None:
    first = TrainingDataset(prepared, SMALL)
    second = TrainingDataset(prepared, SMALL)
    examples = [first.draw(seed) for seed in range(8)]
    for seed in reversed(range(8)):
        assert_equal(second.draw(seed), examples[seed])
    assert all(differ(a, b) for a, b in pairwise(examples))


def test_splits(prepared: Path) -> None:
    assert TrainingDataset(prepared, SMALL).names == ("dimer", "single")
    assert TrainingDataset(prepared, SMALL, "held-out").names == ("other",)
    assert {TrainingDataset(prepared, SMALL).draw(seed).name for seed in range(30)} == {
        "dimer",
        "single",
    }


def test_folder_without_the_split_is_refused(tmp_path: Path) -> None:
    single_protein(SEQUENCE).write(tmp_path / "in/x.cif")
    prepare(tmp_path / "in", tmp_path / "out", PrepareSettings())
    with pytest.raises(ValueError, match="out: has no structure of the split 'held-out'"):
        TrainingDataset(tmp_path / "out", SMALL, "held-out")
    with pytest.raises(ValueError, match="absent: not a folder of `foldcp train-data`"):
        TrainingDataset(tmp_path / "absent", SMALL)


def truth_of(example: TrainingExample) -> dict[tuple[str, int, str], tuple[float, ...]]:
    """Coordinates and B-factor of each resolved atom, by chain, residue from 0, and name."""
    layout = example.features.layout
    token = layout.atom_token
    return {
        (
            layout.chain_names[layout.token_chain[token[i]]],
            int(layout.token_residue[token[i]]) - 1,
            layout.atom_name[i],
        ): (*example.truth.coords[i].tolist(), float(example.truth.bfactors[i]))
        for i in range(len(token))
        if example.truth.resolved[i]
    }


def test_truth_is_the_file_atom_by_atom(prepared: Path, tmp_path: Path) -> None:
    example = TrainingDataset(prepared, SMALL).example("dimer")
    structure = read_experimental(dimer(tmp_path / "dimer.cif"), "dimer")
    expected = {
        (chain.name, int(residue), name): (*xyz.tolist(), float(bfactor))
        for chain in structure.chains
        for residue, name, xyz, bfactor in zip(
            chain.atom_residue, chain.atom_names, chain.coords, chain.bfactors, strict=True
        )
    }
    assert truth_of(example) == expected
    assert not example.truth.coords[example.truth.resolved == 0].any()
    assert len(example.truth.lddt_atoms) == 35 + 36 + 20
    num_tokens = TrainingDataset(prepared, SMALL).num_tokens("dimer")
    assert num_tokens == example.features.num_tokens


def test_crop_keeps_numbers_of_the_whole_structure(prepared: Path) -> None:
    dataset = TrainingDataset(prepared, SMALL)
    whole = dataset.example("dimer").features
    whole_truth = truth_of(dataset.example("dimer"))
    place = {
        (int(a), int(r)): i
        for i, (a, r) in enumerate(zip(whole.asym_id, whole.residue_index, strict=True))
    }
    chains = set()
    for seed in range(30):
        example = dataset.draw(seed)
        if example.name != "dimer":
            continue
        f = example.features
        tokens = torch.tensor(
            [place[int(a), int(r)] for a, r in zip(f.asym_id, f.residue_index, strict=True)]
        )
        chains.add(tuple(sorted(set(f.asym_id.tolist()))))
        assert f.num_tokens <= 24
        for name in ("res_type", "entity_id", "sym_id", "mol_type"):
            assert torch.equal(getattr(f, name), getattr(whole, name)[tokens])
        assert truth_of(example).items() <= whole_truth.items()
        assert len(truth_of(example)) == example.truth.resolved.sum()
        assert 1 <= f.num_msa_rows <= SMALL.msa_rows
        assert torch.equal(f.msa[0].long(), f.res_type)
    assert (1,) in chains or (1, 2) in chains  # the second copy without the first


def test_alignment_is_read_unless_it_is_not_asked_for(prepared: Path) -> None:
    whole = TrainingDataset(prepared, SMALL).example("dimer").features
    assert whole.num_msa_rows == SMALL.msa_rows
    alone = TrainingDataset(prepared, replace(SMALL, msas=False)).example("dimer").features
    assert alone.num_msa_rows == 1
    rows = {TrainingDataset(prepared, SMALL).draw(seed).features.num_msa_rows for seed in range(40)}
    assert rows == {1, 2, 3, 4}


def test_symmetries_are_copies_and_symmetric_atoms(prepared: Path) -> None:
    dataset = TrainingDataset(prepared, SMALL)
    whole = dataset.example("dimer")
    symmetries = whole.truth.symmetries
    assert symmetries is not None
    num_atoms = int(whole.features.atom_mask.sum())
    assert len(symmetries.coords) == num_atoms
    assert len(symmetries.chains) == 2
    own, swapped = symmetries.chains
    assert all(start == other for start, _, other in own)
    (a, a_stop, b), (b_start, _, a_start) = sorted(swapped)[:2]
    assert (a_start, b_start) == (a, b) and b == a_stop
    layout = whole.features.layout
    names = [{layout.atom_name[i] for i in swaps[:, 0]} for (swaps,) in symmetries.residues]
    counts = Counter(tuple(sorted(each)) for each in names)
    letters = Counter(SEQUENCE * 2 + SEQUENCE[:20])
    assert counts == {
        ("OD1", "OD2"): letters["D"],
        ("OE1", "OE2"): letters["E"],
        ("CD1", "CD2", "CE1", "CE2"): letters["F"] + letters["Y"],
    }
    for swaps in (each for (each,) in symmetries.residues):
        tokens = {int(layout.atom_token[i]) for i in swaps.ravel()}
        assert len(tokens) == 1
        assert sorted(swaps[:, 0]) == sorted(swaps[:, 1])


def test_crop_of_one_copy_may_take_the_place_of_the_other(prepared: Path) -> None:
    dataset = TrainingDataset(prepared, SMALL)
    for seed in range(40):
        example = dataset.draw(seed)
        symmetries = example.truth.symmetries
        assert symmetries is not None
        truth = example.truth.coords[: len(symmetries.atoms)]
        assert torch.equal(symmetries.coords[symmetries.atoms], truth)
        chains = set(example.features.asym_id.tolist()) if example.name == "dimer" else set()
        if chains & {0, 1}:
            assert len(symmetries.chains) == 2


def test_ligands_may_be_left_out(prepared: Path) -> None:
    with_ion = TrainingDataset(prepared, SMALL).example("dimer").features
    without = TrainingDataset(prepared, replace(SMALL, ligands=False)).example("dimer").features
    assert with_ion.num_tokens == without.num_tokens + 1
    assert with_ion.layout.chain_kinds[-1] == "ligand"


def test_modified_residues_and_selenomethionine(tmp_path: Path) -> None:
    """Phosphoserine is a token with its own atoms; selenomethionine is methionine; a component
    that is not in the CCD is its parent, here unknown.
    """
    names = {1: "MSE", 3: "SEP", 5: "ZZZZZ"}
    atoms = [
        replace(atom, component=names.get(atom.place or 0, atom.component))
        for atom in protein("A", "MKSAGIAF")
    ]
    selenium = Atom("SE", "MSE", "A", "1", 1, (3, 3, 3), element="SE")
    phosphorus = Atom("P", "SEP", "A", "1", 3, (11, 4, 3), number=3)
    sequence = ["MSE", "LYS", "SEP", "ALA", "ZZZZZ", "ILE", "ALA", "PHE"]
    file = File([*atoms, selenium, phosphorus], {"1": sequence})
    file.write(tmp_path / "in/x.cif")
    prepare(tmp_path / "in", tmp_path / "out", PrepareSettings())
    example = TrainingDataset(tmp_path / "out", SMALL).example("x")
    assert example.features.layout.token_name[:5] == ["MET", "LYS", "SEP", "ALA", "UNK"]
    assert example.features.modified.tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    truth = truth_of(example)
    assert truth["A", 0, "SD"][:3] == (3.0, 3.0, 3.0)
    assert truth["A", 2, "P"][:3] == (11.0, 4.0, 3.0)
    assert ("A", 4, "CA") in truth
    without = TrainingDataset(tmp_path / "out", replace(SMALL, ligands=False)).example("x")
    assert without.features.layout.token_name[2] == "SER"


def test_without_rdkit_ligands_must_be_left_out(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complexes._can_be_read.cache_clear()
    monkeypatch.setattr(complexes, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"structure dimer: ZN: .* or leave them out with ligands"):
        TrainingDataset(prepared, SMALL).example("dimer")
    assert TrainingDataset(prepared, replace(SMALL, ligands=False)).example("dimer").name


def row(name: str, clusters: str, kinds: str, pairs: tuple[tuple[int, int], ...]) -> IndexRow:
    words = {"p": "protein", "d": "dna", "l": "ligand"}
    chains = tuple(
        IndexChain(f"{i}", words[kind], 10, 10, cluster, cluster)
        for i, (cluster, kind) in enumerate(zip(clusters, kinds, strict=True))
    )
    return IndexRow(name, name, "train", chains=chains, interfaces=pairs)


def test_weights_are_those_of_their_clusters() -> None:
    rows = [row("x", "aabl", "ppdl", ((0, 1), (0, 2), (0, 3))), row("y", "ab", "pd", ((0, 1),))]
    items, weights = items_and_weights(rows, DataSettings())
    expected = {
        (0, (0,)): 0.5 / 3 * 3,
        (0, (1,)): 0.5 / 3 * 3,
        (0, (2,)): 0.5 / 2 * 3,
        (0, (3,)): 0.5 / 1 * 1,
        (0, (0, 1)): 1.0 / 1 * 6,
        (0, (0, 2)): 1.0 / 2 * 6,
        (0, (0, 3)): 1.0 / 1 * 4,
        (1, (0,)): 0.5 / 3 * 3,
        (1, (1,)): 0.5 / 2 * 3,
        (1, (0, 1)): 1.0 / 2 * 6,
    }
    total = sum(expected.values())
    found = {(i.row, i.chains): w for i, w in zip(items, weights, strict=True)}
    assert found == pytest.approx({item: w / total for item, w in expected.items()})
    kept, _ = items_and_weights(rows, DataSettings(ligands=False))
    assert {(i.row, i.chains) for i in kept} == expected.keys() - {(0, (3,)), (0, (0, 3))}


def test_items_are_drawn_by_their_weights() -> None:
    rows = [row("x", "aabl", "ppdl", ((0, 1), (0, 2), (0, 3))), row("y", "ab", "pd", ((0, 1),))]
    sampler = ItemSampler(rows, DataSettings())
    count = 4000
    rng = np.random.default_rng(0)
    drawn = Counter(sampler.draw(rng) for _ in range(count))
    for item, weight in zip(sampler.items, sampler.weights, strict=True):
        deviation = (weight * (1 - weight) / count) ** 0.5
        assert abs(drawn[item] / count - weight) < 4 * deviation


def test_workers_make_the_same_examples_in_order(prepared: Path) -> None:
    dataset = TrainingDataset(prepared, SMALL)
    seeds = [5, 3, 8, 1, 2]
    before = len(os.listdir("/proc/self/fd"))
    made = list(prefetch(dataset, seeds, workers=2))
    assert len(os.listdir("/proc/self/fd")) < before + 10
    for seed, example in zip(seeds, made, strict=True):
        assert_equal(example, dataset.draw(seed))
        assert example.features.msa_mask.stride() == dataset.draw(seed).features.msa_mask.stride()
    assert [each.name for each in prefetch(dataset, seeds, workers=0)] == [e.name for e in made]


def test_worker_that_fails_or_dies_says_why(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path / "out")
    dataset = TrainingDataset(tmp_path / "out", replace(SMALL, msas=False))
    examples = prefetch(dataset, iter(range(100)), workers=1)
    assert next(examples).name
    for path in (tmp_path / "out").rglob("*.safetensors"):
        path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        list(prefetch(dataset, range(3), workers=1))


class _Failing(TrainingDataset):
    """A dataset two of whose examples cannot be made."""

    def __reduce__(self) -> tuple[type[_Failing], tuple[Path, DataSettings]]:  # type: ignore[override]
        return _Failing, (self.folder, self.settings)

    def draw(self, seed: int) -> TrainingExample:
        if seed in (1, 3):
            raise ValueError("x.cif: damaged")
        return super().draw(seed)


@pytest.mark.parametrize("workers", [0, 1])
def test_examples_that_cannot_be_made_are_replaced(
    prepared: Path, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    failing = _Failing(prepared, SMALL)
    made = list(prefetch(failing, range(4), workers=workers))
    assert capfd.readouterr().err.count("replaced by another one: x.cif: damaged") == 2
    whole = TrainingDataset(prepared, SMALL)
    assert_equal(made[0], whole.draw(0))
    assert_equal(made[2], whole.draw(2))
    assert_equal(made[3], draw_or_replace(failing, 3))
    assert not torch.equal(made[1].features.ref_pos, made[3].features.ref_pos)


class _Dying(TrainingDataset):
    """A dataset whose process ends at the third example, as one killed for memory does."""

    def __reduce__(self) -> tuple[type[_Dying], tuple[Path, DataSettings]]:  # type: ignore[override]
        return _Dying, (self.folder, self.settings)

    def draw(self, seed: int) -> TrainingExample:
        if seed == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().draw(seed)


def test_worker_that_dies_raises_an_error(prepared: Path) -> None:
    with pytest.raises(RuntimeError, match="a process that makes training examples has died"):
        list(prefetch(_Dying(prepared, SMALL), range(4), workers=1))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real structures: proteins, DNA, ligands, haem, ions, without dates."""
    pytest.importorskip("rdkit", reason="ligands are read with RDKit")
    folder = tmp_path_factory.mktemp("real")
    listed = folder / "list.txt"
    listed.write_text("".join(f"{real_structure(name)}\n" for name in REAL))
    settings = PrepareSettings(filters=FilterSettings(undated=True))
    summary = prepare(listed, folder / "out", settings)
    assert not summary.dropped
    return folder / "out"


@pytest.mark.parametrize("name", REAL)
def test_truth_of_real_structures_is_the_file(real: Path, name: str) -> None:
    example = TrainingDataset(real, DataSettings()).example(name)
    structure = read_experimental(real_structure(name), name)
    kept = set(example.features.layout.chain_names)
    expected = {
        (chain.name, int(residue), atom): (*xyz.tolist(), float(bfactor))
        for chain in structure.chains
        if chain.name in kept
        for residue, atom, xyz, bfactor in zip(
            chain.atom_residue, chain.atom_names, chain.coords, chain.bfactors, strict=True
        )
    }
    found = truth_of(example)
    assert found.items() <= expected.items()
    left_out = {atom for _, _, atom in expected.keys() - found.keys()}
    assert left_out <= {"OXT", "OP3"}
    distances = example.truth.coords[example.features.frame_atoms]
    assert not torch.isnan(distances).any()


def test_real_examples_train_the_tiny_network(real: Path) -> None:
    """Crops with ligands and nucleic acids give finite losses and gradients."""
    torch.set_num_threads(1)
    dataset = TrainingDataset(
        real, DataSettings(crop_tokens=24, crop_atoms=300, max_neighborhood=8)
    )
    model = load("untrained:tiny")
    training = TrainingSettings(recycling=0, multiplicity=1, sampling_steps=1, checkpointing="none")
    require_gradients(model, training.weights)
    kinds: set[int] = set()
    for seed in range(5):
        example = dataset.draw(seed)
        kinds |= set(example.features.mol_type.tolist())
        generator = torch.Generator().manual_seed(seed)
        losses = training_step(model, example, training, generator)
        assert torch.isfinite(losses.loss), (seed, example.name)
        assert losses.loss > 0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert kinds >= {0, 1, 3}


def test_sizes_of_an_example_are_numbers(prepared: Path) -> None:
    with pytest.raises(ValueError, match="crop_tokens must be at least 1, not 0"):
        DataSettings(crop_tokens=0)
    with pytest.raises(ValueError, match="alpha_ligand must be 0 or more, not -1"):
        DataSettings(alpha_ligand=-1)
    with pytest.raises(ValueError, match="min_neighborhood must be between 0"):
        DataSettings(min_neighborhood=50)
    whole = TrainingDataset(prepared, replace(SMALL, crop_tokens=None))
    sizes = {whole.draw(seed).features.num_tokens for seed in range(10)}
    assert sizes == {len(SEQUENCE), 2 * len(SEQUENCE) + 21}
