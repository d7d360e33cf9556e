"""The score columns of `complexes` beside those of Boltz."""

from __future__ import annotations

from foldcp.pipeline.storage.columns.column import Column, count, score

STRUCTURE_COLUMNS = (
    score(
        "ranking_score",
        "ranking score of AlphaFold 3: 0.8 iptm + 0.2 ptm + 0.5 fraction_disordered - 100 if "
        "has_clash, with ptm for iptm when there is one chain",
        "-100..1.5, higher is better",
    ),
    score(
        "fraction_disordered",
        "share of the residues of proteins with a relative accessible surface, the mean over 25 "
        "residues, above 0.581; each chain alone (AlphaFold 3)",
        "0..1",
    ),
    Column(
        "has_clash",
        "bool",
        "whether more than 100 atoms or half of the atoms of a polymer are at most 1.1 Å from "
        "another polymer or from a residue that is not the next (AlphaFold 3)",
        nullable=True,
    ),
    score(
        "mpdockq",
        "mpDockQ of all proteins in the form of AlphaPulldown, 0.221 to 1.048; null for fewer than "
        "two proteins",
        "higher is better",
    ),
    count(
        "num_ligand_chiral_centers",
        "chiral carbons of ligands with three neighbours in their component, or four",
        nullable=True,
    ),
    count(
        "num_ligand_chirality_errors",
        "of them, those with the other hand than the reference conformer",
        nullable=True,
    ),
    count(
        "num_residue_chirality_errors",
        "residues of proteins whose CA has the other hand than the reference",
        nullable=True,
    ),
    count(
        "num_cis_peptides",
        "peptide bonds with |omega| below 30 degrees before residues other than proline",
        nullable=True,
    ),
    count(
        "num_twisted_peptides",
        "peptide bonds with |omega| from 30 to 150 degrees",
        nullable=True,
    ),
    count(
        "num_bad_peptide_bonds",
        "peptide bonds whose length differs from 1.336 Å by more than 0.115 Å (5 sigma)",
        nullable=True,
    ),
)
# Column -> field of StructureScores
STRUCTURE_FIELDS = {
    "ranking_score": "ranking_score",
    "fraction_disordered": "fraction_disordered",
    "has_clash": "has_clash",
    "mpdockq": "mpdockq",
    "num_ligand_chiral_centers": "ligand_chiral_centers",
    "num_ligand_chirality_errors": "ligand_chirality_errors",
    "num_residue_chirality_errors": "residue_chirality_errors",
    "num_cis_peptides": "cis_peptides",
    "num_twisted_peptides": "twisted_peptides",
    "num_bad_peptide_bonds": "bad_peptide_bonds",
}
