"""Bands of ipSAE and the gate of AlphaFold DB's complexes, as columns.

AlphaFold DB gives its predicted complexes these bands and shows those that pass the gate. They were
calibrated on dimers of AlphaFold-Multimer; `foldcp calibrate` finds thresholds for other networks.
"""

from __future__ import annotations

import math

from foldcp.pipeline.storage.columns.column import Column

# Least ipSAE of each band, from the best; below the last is the band "low".
BANDS = {"very high": 0.8, "high": 0.7, "confident": 0.6}
LOWEST_BAND = "low"
GATE_IPSAE = 0.6
GATE_PDOCKQ2 = 0.23
BAND_COLUMNS = (
    Column(
        "ipsae_band",
        "string",
        "band of ipsae_d0res_max in AlphaFold DB: very high (at least 0.8), high (0.7), confident "
        "(0.6) or low; calibrated on dimers of AlphaFold-Multimer; null without ipSAE",
        nullable=True,
    ),
    Column(
        "afdb_gate",
        "bool",
        "whether it would be shown in AlphaFold DB: ipsae_d0res_max at least 0.6 and pdockq2_max "
        "at least 0.23; calibrated likewise; null without either",
        nullable=True,
    ),
)


def ipsae_band(ipsae: float | None) -> str | None:
    """The band of an ipSAE; None without one."""
    if ipsae is None or math.isnan(ipsae):
        return None
    return next((name for name, least in BANDS.items() if ipsae >= least), LOWEST_BAND)


def passes_gate(ipsae: float | None, pdockq2: float | None) -> bool | None:
    """Whether both scores pass; None without either."""
    if ipsae is None or pdockq2 is None or math.isnan(ipsae) or math.isnan(pdockq2):
        return None
    return ipsae >= GATE_IPSAE and pdockq2 >= GATE_PDOCKQ2
