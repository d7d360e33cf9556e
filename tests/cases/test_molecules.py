"""Cases 01, 13 to 18, 21 and 22: ligands, modifications, bonds and constraints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foldcp.complex import Complex
from foldcp.features.featurize import featurize
from tests.cases.support import case, error, needs_cases, plan

pytestmark = needs_cases


def folded(monkeypatch: pytest.MonkeyPatch, path: Path, out: Path) -> Path:
    """The folder of a structure that `foldcp fold` has written with random weights."""
    from foldcp.pipeline.cli import main

    options = ["--checkpoint", "untrained:tiny", "--out", str(out)]
    settings = ["--set", "model.steps=2", "--set", "model.recycling=0"]
    monkeypatch.setattr("sys.argv", ["foldcp", "fold", str(path), *options, *settings])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    return out / "predictions" / path.stem


def test_01_white_space_in_a_smiles_is_refused() -> None:
    assert plan(case(1) / "right.yaml").sizes == {"right": 29}
    for name in ("wrapped", "escaped", "named"):
        assert "ligand L: white space in SMILES" in error(case(1) / f"{name}.yaml")


def test_13_files_have_a_token_for_each_residue_and_atom(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert plan(case(13) / "hl.yaml").sizes == {"hl": 109}
    assert plan(case(13) / "plain.yaml").sizes == {"plain": 78}
    files = folded(monkeypatch, case(13) / "hl.yaml", tmp_path)
    assert np.load(files / "pae_hl_model_0.npz")["pae"].shape == (109, 109)
    assert np.load(files / "plddt_hl_model_0.npz")["plddt"].shape == (109,)


@pytest.mark.parametrize(
    ("name", "num_atoms"),
    [("cyclosporin", 85), ("vancomycin", 101), ("peg", 181), ("chlorinated", 92)],
)
def test_14_large_ligands(name: str, num_atoms: int) -> None:
    task = plan(case(14) / f"{name}.yaml").task
    assert task.num_tokens == 12 + num_atoms
    names = featurize(task.complex).layout.atom_name[-num_atoms:]
    assert len(set(names)) == num_atoms and max(map(len, names)) <= 4


def test_14_large_ligands_of_a_folder() -> None:
    assert plan(case(14) / "folder").sizes == {"cyclosporin": 97, "vancomycin": 113}


def test_15_ions_metals_and_codes_of_five_letters() -> None:
    metals = plan(case(15) / "metals.yaml").task
    assert metals.num_tokens == 72
    layout = featurize(metals.complex).layout
    of_chain: dict[str, list[int]] = {}
    for token, element in zip(layout.atom_token, layout.atom_element, strict=True):
        name = layout.chain_names[layout.token_chain[token]]
        of_chain.setdefault(name, []).append(int(element))
    assert of_chain["B"] == of_chain["C"] == [20] and of_chain["D"] == [26]
    assert of_chain["E"] == [30] and len(of_chain["F"]) == 43 and len(of_chain["G"]) == 8
    assert 11 in of_chain["H"]
    assert plan(case(15) / "five_letters.yaml").sizes == {"five_letters": 12 + 2 * 13}


def test_15_a_code_that_is_not_known_and_an_escape_that_is_none() -> None:
    [reason] = plan(case(15) / "new_code.yaml").reasons.values()
    assert "'A1B7Z' is not in the Chemical Component Dictionary" in reason
    assert "(line 3, column 36)" in error(case(15) / "double_quotes.yaml")


def test_15_reference_conformers_have_the_stereochemistry_of_the_smiles() -> None:
    chem = pytest.importorskip("rdkit.Chem")
    from foldcp.chemistry.ligands import smiles_component

    complex = plan(case(15) / "stereo.yaml").task.complex
    for ligand in complex.chains[1:]:
        written = chem.MolFromSmiles(ligand.smiles)
        mol = chem.Mol(written)
        component = smiles_component(ligand.smiles, "LIG1")
        conformer = chem.Conformer(mol.GetNumAtoms())
        for atom, position in enumerate(component.positions.tolist()):
            conformer.SetAtomPosition(atom, position)
        mol.AddConformer(conformer)
        chem.AssignStereochemistryFrom3D(mol)
        assert chem.MolToSmiles(mol) == chem.MolToSmiles(written)


def glycan() -> Complex:
    return plan(case(16) / "glycan.yaml").task.complex


def test_16_bonds_of_a_glycan_are_read() -> None:
    complex = glycan()
    assert len(complex.bonds) == 7
    features = featurize(complex)
    # with the leaving oxygens, which Boltz keeps too
    assert len(features.layout.token_chain) == 18 + 99
    joined = {tuple(pair) for pair in features.bonds[:, :2].tolist()}
    assert len(joined) > 7


def test_16_bonds_of_a_glycan_are_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = folded(monkeypatch, case(16) / "glycan.yaml", tmp_path)
    assert "_struct_conn" in (files / "glycan_model_0.cif").read_text()


@pytest.mark.parametrize(("name", "period"), [("first", 0), ("second", 0), ("cyclic", 8)])
def test_17_a_disulfide_closes_no_ring(name: str, period: int) -> None:
    complex = plan(case(17) / f"{name}.yaml").task.complex
    [peptide] = [i for i, chain in enumerate(complex.chains) if chain.name == "P"]
    features = featurize(complex)
    of_peptide = np.asarray(features.layout.token_chain) == peptide
    assert set(features.cyclic_period[of_peptide].tolist()) == {period}
    assert not features.cyclic_period[~of_peptide].any()


def test_18_caps_and_selenocysteine() -> None:
    assert plan(case(18) / "caps.yaml").sizes == {"caps": 21}
    for name, depth in (("sec_u", 3), ("sec_x", 3), ("sec_c", 2)):
        assert plan(case(18) / f"{name}.yaml").depths == {name: depth}
    corum = plan(case(18) / "corum.tsv", sequences=(case(18) / "seqs.fasta",))
    assert corum.sizes == {"1": 36}
    assert "P33333" in corum.reasons["2"] and "'*'" in corum.reasons["2"]
    assert "P44444" in corum.reasons["3"] and "'-'" in corum.reasons["3"]


def test_21_nucleic_acids_and_modifications() -> None:
    assert plan(case(21) / "nucleic.yaml").sizes == {"nucleic": 44}
    assert "unknown key 'smiles'" in error(case(21) / "mod.yaml")
    assert "invalid letters 'T' in the rna sequence" in error(case(21) / "t_in_rna.yaml")


def test_22_constraints_on_what_does_not_exist_are_told_when_planned() -> None:
    planned = plan(case(22) / "batch")
    assert list(planned.tasks) == ["bond_smiles", "pocket_right"]
    expected = {
        "bond_right": "has no atom 'C1', only C12 C13",
        "contact_ligand_by_number": "has no atom '1', only C12 C13",
        "contact_atom_of_protein": "expected a positive integer, got 'CA'",
        "pocket_beyond": "chain A has no residue 13 (of 12)",
    }
    assert planned.reasons.keys() == expected.keys()
    assert all(text in planned.reasons[name] for name, text in expected.items())
