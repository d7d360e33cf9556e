"""Scores of a whole complex beside those of Boltz."""

from __future__ import annotations

from dataclasses import asdict

from foldcp.metrics.geometry.geometry import Geometry
from foldcp.metrics.interface.scores import StructureScores

IPTM_WEIGHT = 0.8
DISORDER_WEIGHT = 0.5
CLASH_WEIGHT = 100.0
NAN = float("nan")


def structure_scores(
    geometry: Geometry, ptm: float, iptm: float | None, mpdockq: float
) -> StructureScores:
    """The scores; `iptm` is None for one chain."""
    clashes = geometry.clashes
    has_clash = NAN if clashes is None else float(clashes.has_clash)
    disordered = geometry.fraction_disordered
    fraction = NAN if disordered is None else disordered
    checks = geometry.stereochemistry
    counts = {} if checks is None else asdict(checks)
    interface_tm = ptm if iptm is None else IPTM_WEIGHT * iptm + (1 - IPTM_WEIGHT) * ptm
    return StructureScores(
        ranking_score=interface_tm + DISORDER_WEIGHT * fraction - CLASH_WEIGHT * has_clash,
        fraction_disordered=fraction,
        has_clash=has_clash,
        mpdockq=mpdockq,
        ligand_chiral_centers=float(counts.get("ligand_centers", NAN)),
        ligand_chirality_errors=float(counts.get("ligand_errors", NAN)),
        residue_chirality_errors=float(counts.get("residue_errors", NAN)),
        cis_peptides=float(counts.get("cis_peptides", NAN)),
        twisted_peptides=float(counts.get("twisted_peptides", NAN)),
        bad_peptide_bonds=float(counts.get("bad_peptide_bonds", NAN)),
    )
