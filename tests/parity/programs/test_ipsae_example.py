"""The example that ipsae.py ships, AURKA and TPX2 by AlphaFold 3 with ATP, two Mg and two
phosphothreonines: our scores, those of the program, and those that its authors publish.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import gemmi
import numpy as np

from foldcp.features.layout import Layout
from tests.parity.programs.conftest import Run
from tests.parity.programs.differences import Differences
from tests.parity.programs.scored_case import scored
from tests.parity.programs.test_ipsae import VARIABLES, ipsae_variables, printed_scores
from tests.support.metrics_reference import CENTERS, Case

BELOW = -50.0  # the logit of a bin that does not count
NUDGE = 1e-5  # Å
PUBLISHED = {"ipsae_d0res": 6e-7, "ipsae_d0chn": 6e-7, "ipsae_d0dom": 6e-7}  # rounding


def test_ipsae_on_its_example(run: Run, source: Callable[[str], Path], tmp_path: Path) -> None:
    """The stored LIS is that of a version whose cutoff was inclusive, so it is not compared."""
    pae_file = tmp_path / "full_data_0.json"
    model = tmp_path / "model_0.cif"
    shutil.copy(source("ipsae.py example, PAE"), pae_file)
    shutil.copy(source("ipsae.py example, structure"), model)
    arguments = (pae_file, model, "10", "10")
    variables = ipsae_variables(run, source("ipsae.py"), arguments, tmp_path / "out.json")
    published = printed_scores(source("ipsae.py example, scores"))
    case = scored("aurka_tpx2", _case(json.loads(pae_file.read_text()), model))
    exact = Differences("ipsae.py 4", "its example")
    stored = Differences("ipsae.py 4, stored", "its example")
    for (a, b), row in case.pairs.items():
        for variable, column in VARIABLES.items():
            exact.add(column, row[column], variables[variable][a][b])
            if column != "lis":
                stored.add(column, row[column], published[a, b][column])
    exact.check(1e-6)
    stored.check(5.1e-5, PUBLISHED)


def _case(data: dict[str, list], model: Path) -> Case:
    """The two proteins, a token for each residue as ipsae.py has it: PAE of CA, pLDDT of CB."""
    structure = gemmi.read_structure(str(model))
    atoms = [
        (chain.name, residue.name, residue.seqid.num, atom)
        for chain in structure[0]
        for residue in chain
        for atom in residue
    ]
    proteins = [a for a in atoms if a[0] in ("A", "B")]
    assert len(atoms) == len(data["atom_plddts"])
    starts = [i for i, atom in enumerate(proteins) if i == 0 or atom[:3] != proteins[i - 1][:3]]
    layout = _layout(proteins, starts)
    spans = list(pairwise([*starts, len(proteins)]))
    named = [{proteins[i][3].name: i for i in range(*span)} for span in spans]
    beta = np.array([atom.get("CB", atom["CA"]) for atom in named])
    pae = np.array(data["pae"])[np.ix_(*[_tokens(data, proteins, spans)] * 2)]
    num_tokens = len(named)
    no_pairs = np.zeros((num_tokens, num_tokens))
    return Case(
        layout=layout,
        frame_atoms=np.array([[atom["N"], atom["CA"], atom["C"]] for atom in named]),
        rep_atom=beta,
        coords=np.array([atom[3].pos.tolist() for atom in proteins]),
        pae_logits=_logits(pae),
        pde_logits=np.zeros((num_tokens, num_tokens, 64)),
        contact_probability=no_pairs,
        plddt=np.array(data["atom_plddts"])[beta] / 100,
    )


def _layout(atoms: list[tuple], starts: list[int]) -> Layout:
    """The layout of atoms, given the first of each residue; chains A and B are proteins."""
    first = [atoms[i] for i in starts]
    num_atoms = len(atoms)
    return Layout(
        chain_names=["A", "B"],
        chain_kinds=["protein", "protein"],
        chain_entities=np.arange(2),
        token_chain=np.array(["AB".index(chain) for chain, *_ in first]),
        token_residue=np.array([number for _, _, number, _ in first]),
        token_name=[name for _, name, *_ in first],
        atom_token=np.searchsorted(starts, np.arange(num_atoms), side="right") - 1,
        atom_name=[atom.name for *_, atom in atoms],
        atom_element=np.array([atom.element.atomic_number for *_, atom in atoms]),
        chain_accessions=["", ""],
        chain_smiles=["", ""],
        atom_charge=np.zeros(num_atoms, dtype=np.int64),
        bonds=np.zeros((0, 3), dtype=np.int64),
        covalent=np.zeros((0, 2), dtype=np.int64),
        chain_msa_depth=np.ones(2, dtype=np.int64),
    )


def _tokens(data: dict[str, list], atoms: list[tuple], spans: list[tuple[int, int]]) -> np.ndarray:
    """AlphaFold 3's token of each residue: it has one for each atom of a modified residue."""
    tokens = []
    position = 0
    for first, last in spans:
        chain, _, number, _ = atoms[first]
        here = (data["token_chain_ids"][position], data["token_res_ids"][position])
        assert here == (chain, number)
        num_atoms = last - first
        is_modified = data["token_res_ids"][position : position + num_atoms] == [number] * num_atoms
        alpha = [atom.name for *_, atom in atoms[first:last]].index("CA")
        tokens.append(position + (alpha if is_modified else 0))
        position += num_atoms if is_modified else 1
    return np.array(tokens)


def _logits(pae: np.ndarray) -> np.ndarray:
    """Logits of which the two bins next to a value have it as their mean.

    A value of 10 or 12 Å is a little raised, so that rounding does not put it below the cutoff.
    """
    pae = np.where(np.isin(pae, (8, 10, 12, 15)), pae + NUDGE, pae)
    position = (np.clip(pae, CENTERS[0], CENTERS[-1]) - CENTERS[0]) / 0.5
    lower = np.minimum(position.astype(int), 62)
    share = position - lower
    logits = np.full((*pae.shape, 64), BELOW)
    with np.errstate(divide="ignore"):
        for bins, weight in ((lower, 1 - share), (lower + 1, share)):
            values = np.maximum(np.log(weight), BELOW)
            np.put_along_axis(logits, bins[..., None], values[..., None], axis=-1)
    return logits
