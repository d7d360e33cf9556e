"""Ligands, ions, modified residues, bonds, cycles, pockets and contacts, by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from foldcp.chemistry.ligands import ccd_component, smiles_component
from foldcp.chemistry.vocabulary import TOKEN_IDS, ccd_atoms
from foldcp.complex import Bond, Chain, Complex, Contact, Pocket, Token
from foldcp.features.atoms import Augmentation
from foldcp.features.features import Features
from foldcp.features.featurize import featurize

# bond types of `Features`: one more
UNK = TOKEN_IDS["UNK"]
SINGLE = 2
DOUBLE = 3
AROMATIC = 5
COVALENT = 6


def test_featurize_without_rdkit_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    ccd_component.cache_clear()
    smiles_component.cache_clear()
    with pytest.raises(
        ValueError,
        match=r"complex x, chain L: CCD component 'GOL' .* pip install 'foldcp\[ligands\]'",
    ):
        featurize(Complex("x", (Chain("L", "ligand", ccd=("GOL",)),)))
    with pytest.raises(ValueError, match=r"chain L: SMILES 'CCO' is read with RDKit"):
        featurize(Complex("x", (Chain("L", "ligand", smiles="CCO"),)))


class TestWithRDKit:
    """Tests that need the extra `ligands`."""

    @pytest.fixture(autouse=True)
    def rdkit(self) -> None:
        pytest.importorskip("rdkit", reason="the extra `ligands` is not installed")

    def test_tokenize_makes_a_ligand_one_token_per_atom(self) -> None:
        """Ethane-1,2-diol: C1-O1, C1-C2, C2-O2."""
        features = featurize(
            Complex("x", (Chain("A", "protein", "G"), Chain("L", "ligand", ccd=("EDO",))))
        )
        assert features.layout.token_name == ["GLY", *["EDO"] * 4]
        assert features.layout.atom_name[4:] == ["C1", "O1", "C2", "O2"]
        assert (
            features.res_type[1:].tolist() == [UNK] * 4
            and features.mol_type[1:].tolist() == [3] * 4
        )
        assert features.residue_index[1:].tolist() == [0] * 4 and not features.modified.any()
        assert features.ref_space_uid[:8].tolist() == [0] * 4 + [1] * 4
        assert features.rep_atom[1:].tolist() == [4, 5, 6, 7]
        edges = {(1, 2): SINGLE, (1, 3): SINGLE, (3, 4): SINGLE}
        assert bonds(features) == edges | {(j, i): kind for (i, j), kind in edges.items()}
        # Atoms 0 and 1 of the chain give a frame that stands in until there are coordinates.
        assert features.frame_atoms[1:].tolist() == [[5, 4, 6]] * 4

    def test_tokenize_of_ions_and_copies(self) -> None:
        chains = (
            *(Chain(n, "ligand", ccd=("ZN",)) for n in "IJ"),
            Chain("L", "ligand", ccd=("EDO", "MG")),
        )
        features = featurize(Complex("x", chains))
        assert features.entity_id.tolist() == [
            0,
            0,
            1,
            1,
            1,
            1,
            1,
        ] and features.sym_id.tolist() == [0, 1, *[0] * 5]
        assert features.residue_index.tolist() == [0, 0, 0, 0, 0, 0, 1]
        assert features.ref_element[[0, 1, 6]].tolist() == [30, 30, 12]
        assert features.ref_charge[[0, 1, 2, 6]].tolist() == [2, 2, 0, 2]
        assert features.frame_atoms[:2].tolist() == [[0, 0, 0], [1, 1, 1]]

    def test_ccd_component_bond_types_follow_rdkit(self) -> None:
        """Benzene from the CCD and pyridine-4-carbonitrile from SMILES."""
        benzene = featurize(Complex("x", (Chain("L", "ligand", ccd=("BNZ",)),)))
        assert set(bonds(benzene).values()) == {AROMATIC} and len(benzene.bonds) == 12
        nitrile = featurize(Complex("x", (Chain("L", "ligand", smiles="N#Cc1ccncc1"),)))
        kinds = sorted(bonds(nitrile).values())
        assert kinds == [SINGLE] * 2 + [4] * 2 + [AROMATIC] * 12
        iron = bonds(featurize(Complex("x", (Chain("L", "ligand", ccd=("HEM",)),))))
        assert [iron[i, 42] for i in (38, 39, 40, 41)] == [
            SINGLE,
            1,
            SINGLE,
            1,
        ]  # two bonds of the iron are dative
        # The cluster of nitrogenase, whose sulphurs have three bonds.
        assert 1 in bonds(featurize(Complex("x", (Chain("L", "ligand", ccd=("ICS",)),)))).values()

    def test_smiles_component_names_atoms_by_element_and_rank(self) -> None:
        chains = tuple(
            Chain(n, "ligand", smiles=s) for n, s in (("A", "CCO"), ("B", "C"), ("C", "CCO"))
        )
        features = featurize(Complex("x", chains))
        assert features.layout.token_name == ["LIG1"] * 3 + ["LIG2"] + ["LIG1"] * 3
        names = features.layout.atom_name
        assert [name[0] for name in names[:3]] == ["C", "C", "O"]
        ranks = [int(name[1:]) for name in names[:3]]  # hydrogens come first among nine atoms
        assert sorted(ranks) == [7, 8, 9] and names[:3] == names[4:]
        x = features.ref_pos
        assert 1.3 < torch.dist(x[0], x[1]) < 1.7 and 1.2 < torch.dist(x[1], x[2]) < 1.6
        smiles_component.cache_clear()
        assert torch.equal(featurize(Complex("x", chains)).ref_pos, features.ref_pos)

    @pytest.mark.parametrize(
        ("smiles", "message"),
        [("C1CC", "invalid SMILES"), ("[H][H]", "no heavy atoms")],
    )
    def test_featurize_refuses_invalid_ligands(self, smiles: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            featurize(Complex("x", (Chain("L", "ligand", smiles=smiles),)))

    def test_ccd_component_takes_deuterium_for_hydrogen(self) -> None:
        features = featurize(Complex("x", (Chain("L", "ligand", ccd=("DOD",)),)))
        assert features.layout.atom_name == ["O"] and not len(features.bonds)

    def test_featurize_of_an_unknown_component_names_the_chain(self) -> None:
        with pytest.raises(ValueError, match="complex x, chain A: 'QQQQ' is not in the Chemical"):
            featurize(Complex("x", (Chain("A", "protein", "AG", modifications=((2, "QQQQ"),)),)))

    def test_tokenize_makes_a_modified_residue_one_token(self) -> None:
        """Phosphoserine keeps N .. O3P without OXT; its last bond is P-O3P; selenomethionine
        becomes methionine.
        """
        chain = Chain("A", "protein", "AMSG", modifications=((3, "SEP"), (2, "MSE")))
        features = featurize(
            Complex("x", (chain, Chain("R", "rna", "GU", modifications=((2, "5MU"),))))
        )
        assert features.layout.token_name == ["ALA", "MET", "SEP", "GLY", "G", "5MU"]
        assert features.res_type.tolist() == [
            TOKEN_IDS[n] for n in ("ALA", "MET", "UNK", "GLY", "G", "N")
        ]
        # An alignment sees any modified residue as the unknown amino acid.
        assert features.msa[0].tolist() == [
            TOKEN_IDS[n] for n in ("ALA", "MET", "UNK", "GLY", "G", "UNK")
        ]
        assert (
            features.modified.tolist() == [0, 0, 1, 0, 0, 1]
            and features.mol_type.tolist() == [0] * 4 + [2] * 2
        )
        names = features.layout.atom_name
        start = 5 + 8
        assert " ".join(names[start : start + 10]) == "N CA CB OG C O P O1P O2P O3P"
        assert features.rep_atom[2] == start
        assert features.frame_atoms[2].tolist() == [start] * 3
        assert [names[i] for i in features.frame_atoms[5].tolist()] == [
            "C1'",
            "C3'",
            "C4'",
        ]
        assert bonds(features) == {(2, 2): SINGLE, (5, 5): SINGLE}

    def test_ccd_component_has_the_ideal_coordinates(self) -> None:
        still = Augmentation(torch.zeros(0, 3, 3), torch.zeros(0, 3))
        features = featurize(
            Complex("x", (Chain("L", "ligand", ccd=("ATP",)),)), augmentation=still
        )
        ccd = ccd_atoms("ATP")
        heavy = np.asarray(ccd.elements) != 1
        np.testing.assert_allclose(
            features.ref_pos[: heavy.sum()].numpy(), ccd.positions[heavy], atol=1e-6
        )

    def test_token_bonds_of_the_input(self) -> None:
        """Cysteine to the first carbon of a ligand, and the phosphate inside a modified residue
        once more.
        """
        chains = (
            Chain("A", "protein", "GCS", modifications=((3, "SEP"),)),
            Chain("L", "ligand", ccd=("EDO",)),
        )
        asked = (
            Bond(("A", 2, "SG"), ("L", 1, "C2")),
            Bond(("A", 3, "P"), ("A", 3, "N")),
        )
        found = bonds(featurize(Complex("x", chains, bonds=asked)))
        assert found[1, 5] == found[5, 1] == COVALENT and found[2, 2] == COVALENT
        assert len(found) == 6 + 2 + 1

    def test_contact_conditions_of_atoms(self) -> None:
        chains = (Chain("A", "protein", "GC"), Chain("L", "ligand", ccd=("EDO", "EDO")))
        features = featurize(Complex("x", chains, contacts=(Contact(("L", "O2"), ("A", 2), 4.5),)))
        assert features.contacts.tolist() == [[1, 5, 4], [5, 1, 4]]
        with pytest.raises(
            ValueError,
            match=r"residue 1 of chain L \(EDO\) has no atom 'O3', only C1 O1 C2 O2",
        ):
            featurize(Complex("x", chains, contacts=(Contact(("L", "O3"), ("A", 2)),)))


def bonds(features: Features) -> dict[tuple[int, int], int]:
    return {(i, j): kind for i, j, kind in features.bonds.tolist()}


AB = (Chain("A", "protein", "GCA"), Chain("B", "protein", "CG"))


def test_contact_conditions_of_a_pocket_and_contacts() -> None:
    pockets = (Pocket("B", (("A", 3), ("A", 1)), 7.5),)
    contacts = (Contact(("A", 2), ("B", 2), 5.0), Contact(("B", 1), ("A", 1), 9.0))
    features = featurize(Complex("x", AB, pockets=pockets, contacts=contacts))
    listed = {(i, j): kind for i, j, kind in features.contacts.tolist()}
    thresholds = dict(zip(listed, features.contact_threshold.tolist(), strict=True))
    assert features.contact_default == 1
    binder_to_pocket = {(3, 2): 3, (4, 2): 3, (4, 0): 3}
    assert listed == binder_to_pocket | {(j, i): 2 for i, j in binder_to_pocket} | {
        # the last, which takes the place of the pocket's
        (1, 4): 4,
        (4, 1): 4,
        (3, 0): 4,
        (0, 3): 4,
    }
    assert (
        thresholds[2, 4] == 7.5
        and thresholds[1, 4] == 5.0
        and thresholds[3, 0] == thresholds[0, 3] == 9.0
    )
    assert features.contacts.tolist() == sorted(features.contacts.tolist())


def test_contact_conditions_of_a_pocket_within_its_binder_name_each_pair_once() -> None:
    features = featurize(Complex("x", AB, pockets=(Pocket("B", (("B", 2),)),)))
    # Row by row as Boltz writes them: (binder, token) first, then (token, binder) over it.
    assert features.contacts.tolist() == [[3, 4, 3], [4, 3, 2], [4, 4, 2]]


@pytest.mark.parametrize("place", [0, 1])
def test_cyclic_period_of_a_head_to_tail_bond_only(
    place: int,
) -> None:
    def period(
        atom1: tuple[int, str], atom2: tuple[int, str], sequence: str = "CGC"
    ) -> list[float]:
        chains = [Chain("B", "protein", "CAAC")]
        chains.insert(place, Chain("A", "protein", sequence))
        features = featurize(
            Complex("x", tuple(chains), bonds=(Bond(("A", *atom1), ("A", *atom2)),))
        )
        period = features.cyclic_period[features.asym_id == place]
        assert not features.cyclic_period[features.asym_id != place].any()
        return period.tolist()

    assert period((1, "SG"), (3, "SG")) == period((3, "SG"), (1, "SG")) == [0, 0, 0]
    assert period((1, "N"), (3, "C")) == period((3, "C"), (1, "N")) == [3, 3, 3]
    assert (
        period((1, "C"), (3, "N"))
        == period((1, "N"), (3, "CA"))
        == period((1, "N"), (2, "C"))
        == [0, 0, 0]
    )
    assert period((1, "N"), (2, "C"), "CC") == [0, 0]


def test_cyclic_period_ignores_bonds_between_chains() -> None:
    chains = (Chain("A", "protein", "CGC"), Chain("B", "protein", "CAC"))
    bond = Bond(("A", 1, "N"), ("B", 3, "C"))
    assert not featurize(Complex("x", chains, bonds=(bond,))).cyclic_period.any()


@pytest.mark.parametrize(
    "smiles",
    [
        "CC(=O)Oc1ccccc1 C(=O)O",
        "O/C=C\n1cccc1",
        "CCO ethanol",
        "CC\tO",
        "CC\0O",
        "CCO\n",
    ],
)
def test_chain_refuses_white_space_in_smiles(smiles: str) -> None:
    with pytest.raises(ValueError, match=r"ligand L: white space in SMILES '") as caught:
        Chain("L", "ligand", smiles=smiles)
    assert repr(smiles) in str(caught.value)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (("A", 4), r"chain A has no residue 4 \(of 3\)"),
        (("A", 0), "chain A has no residue 0"),
        (("A", "CA"), "invalid residue number 'CA' of chain A, which is a polymer"),
        (("Z", 1), "names the chain 'Z', which does not exist"),
    ],
)
def test_contact_conditions_refuse_tokens_that_do_not_exist(token: Token, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        featurize(Complex("x", AB, contacts=(Contact(token, ("B", 1)),)))
    with pytest.raises(ValueError, match=message):
        featurize(Complex("x", AB, pockets=(Pocket("B", (token,)),)))


def test_featurize_refuses_bonds_and_binders_that_do_not_exist() -> None:
    with pytest.raises(
        ValueError,
        match=r"residue 2 of chain A \(CYS\) has no atom 'SD', only N CA C O CB SG",
    ):
        featurize(Complex("x", AB, bonds=(Bond(("A", 2, "SD"), ("B", 1, "SG")),)))
    with pytest.raises(ValueError, match="the binder 'Q' of a pocket does not exist"):
        featurize(Complex("x", AB, pockets=(Pocket("Q", (("A", 1),)),)))
