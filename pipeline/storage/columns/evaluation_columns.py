"""Columns of the tables of `foldcp evaluate`, beside the names of rows."""

from __future__ import annotations

from foldcp.pipeline.storage.columns.column import Column, count, names, score, text

ERROR = "Å, lower is better"
REFERENCE_COLUMNS = (
    text("reference", "file of the reference; empty where there is none"),
    text("reference_sha256", "SHA-256 of its unpacked content"),
)
INTERFACE_EVALUATION_COLUMNS = (
    Column("molecule_type_a", "string", "protein, dna or rna"),
    Column("molecule_type_b", "string", "protein, dna, rna or ligand"),
    Column(
        "reference_chain_a",
        "string",
        "chain of the reference that chain_a was assigned to: the author's name of a polymer, "
        "chain:component:number of a ligand",
    ),
    Column("reference_chain_b", "string", "chain of the reference of chain_b, likewise"),
    score(
        "dockq",
        "DockQ: mean of fnat, 1 / (1 + (irmsd / 1.5)²) and 1 / (1 + (lrmsd / 8.5)²) (Basu 2016; "
        "nucleic acids as in DockQ 2); null for ligands, and where a side has no backbone atoms in "
        "common",
    ),
    Column(
        "dockq_class",
        "string",
        "incorrect, acceptable (dockq at least 0.23), medium (0.49) or high (0.80); null without "
        "dockq",
        nullable=True,
    ),
    score("fnat", "share of the reference's contacts that are predicted; null for ligands"),
    score(
        "fnonnat",
        "share of the predicted contacts that the reference does not have, of residues that it "
        "resolves; null for ligands",
        "0..1, lower is better",
    ),
    score(
        "irmsd",
        "deviation of the backbone of residues within 10 Å of the other chain, after superposing "
        "it; null for ligands",
        ERROR,
    ),
    score(
        "lrmsd",
        "deviation of the backbone of the shorter chain after superposing the longer one; null "
        "for ligands",
        ERROR,
    ),
    count(
        "num_reference_contacts",
        "contacts of the reference: pairs of residues with heavy atoms nearer than 5 Å",
    ),
    count("num_contacts", "predicted contacts of residues that both have; null for ligands", True),
    score(
        "interface_lddt",
        "lDDT of all heavy atoms over distances between the two chains below 15 Å in the "
        "reference; null for ligands, whose is lddt_pli",
    ),
    score(
        "ligand_rmsd",
        "RMSD of the ligand after superposing the backbone of residues of chain_a within 10 Å of "
        "it, corrected for symmetry; null unless chain_b is a ligand",
        ERROR,
    ),
    score(
        "lddt_pli",
        "lDDT of the distances between the ligand and chain_a below 6 Å in the reference, "
        "corrected for symmetry, without a penalty for added contacts; null unless chain_b is a "
        "ligand",
    ),
)
COMPLEX_EVALUATION_COLUMNS = (
    text(
        "reason",
        "why there are no measures, such as no reference; empty for an evaluated sample",
    ),
    count("num_chains", "polymers that were predicted", nullable=True),
    count("num_reference_chains", "polymers of the reference", nullable=True),
    count("num_matched_chains", "polymers that were assigned to one of the reference", True),
    names("matched_chains", "assigned chains, ligands among them, each as chain=reference chain"),
    count(
        "num_matched_residues",
        "residues of assigned polymers that both the prediction and the reference have",
        nullable=True,
    ),
    Column(
        "min_sequence_identity",
        "float32",
        "identical residues as a share of aligned ones, of the assigned chain where it is least",
        "0..1",
        nullable=True,
    ),
    count(
        "num_interfaces",
        "interfaces of the reference between assigned polymers, those that have a dockq",
        nullable=True,
    ),
    score("dockq_mean", "mean dockq of these interfaces; null without any"),
    score("dockq_min", "least dockq of these interfaces; null without any"),
    score(
        "tm_score",
        "TM-score of all assigned polymers together (CA, C3' of nucleic acids), normalised by "
        "the number of these atoms in the reference",
    ),
    score("rmsd", "RMSD of these atoms after superposing all of them", ERROR),
    Column(
        "reference_superposition",
        "list<float64>",
        "that superposition: a rotation R, row by row, and a translation t (Å), so that x R + t of "
        "the reference's atoms x lie on the prediction",
        nullable=True,
    ),
    score(
        "lddt",
        "lDDT of all heavy atoms of assigned polymers, distances below 15 Å, names of symmetric "
        "atoms exchanged where that is better, without checks of stereochemistry",
    ),
    score("interface_lddt", "likewise, of distances between different chains"),
    count("num_ligands", "ligands that were assigned to one of the reference", nullable=True),
    score(
        "ligand_rmsd",
        "RMSD of a ligand after superposing its pocket (backbone of residues of any chain within "
        "10 Å), corrected for symmetry, mean over assigned ligands",
        ERROR,
    ),
    score("lddt_pli", "lDDT of distances of a ligand to any chain, mean over assigned ligands"),
    Column(
        "min_identity",
        "float64",
        "--min-identity: least sequence identity of chains that are assigned to each other",
        "0..1",
    ),
    Column("version", "string", "version of foldcp that evaluated it"),
)
