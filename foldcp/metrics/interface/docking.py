"""pDockQ, pDockQ2 and mpDockQ: docking quality from contacts, pLDDT and PAE, fitted to proteins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Sigmoid:
    """height / (1 + exp(-slope (x - middle))) + base."""

    height: float
    middle: float
    slope: float
    base: float

    def __call__(self, x: Float[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
        return self.height / (1 + np.exp(-self.slope * (x - self.middle))) + self.base


PDOCKQ = Sigmoid(0.724, 152.611, 0.052, 0.018)  # Bryant 2022
PDOCKQ2 = Sigmoid(1.31, 84.733, 0.075, 0.005)  # ipsae.py
PDOCKQ2_ORIGINAL = Sigmoid(1.31034849, 84.7326239, 0.0747157696, 0.00501886443)  # Zhu 2023
MPDOCKQ = Sigmoid(0.827, 261.398, 0.036, 0.221)  # AlphaPulldown


def pdockq(
    contacts: Float[np.ndarray, "C C"], interface_plddt: Float[np.ndarray, "C C"]
) -> Float[np.ndarray, "C C"]:
    """pDockQ from the number of contacts and the mean pLDDT (0..1) of the residues of both sides;
    0 without contact (ipsae.py; Bryant 2022).
    """
    x = 100 * interface_plddt * np.log10(np.maximum(contacts, 1))
    return np.where(contacts > 0, PDOCKQ(x), 0)


def pdockq2(
    contacts: Float[np.ndarray, "C C"],
    tm: Float[np.ndarray, "C C"],
    interface_plddt: Float[np.ndarray, "C C"],
) -> Float[np.ndarray, "C C"]:
    """pDockQ2 as ipsae.py has it: the number of CB contacts and the sum of their TM, the mean pLDDT
    of the residues of both sides, each once; 0 without contact.
    """
    mean_tm = tm / np.maximum(contacts, 1)
    return np.where(contacts > 0, PDOCKQ2(100 * interface_plddt * mean_tm), 0)


def pdockq2_original(
    contacts: Float[np.ndarray, "*S"],
    plddt: Float[np.ndarray, "*S"],
    tm: Float[np.ndarray, "*S"],
) -> Float[np.ndarray, "*S"]:
    """pDockQ2 as published (Zhu 2023), from sums over the CA contacts of a chain: its own pLDDT
    (0..1), which counts once for every contact, times the mean TM; 0 without contact.
    """
    number = np.maximum(contacts, 1)
    x = 100 * (plddt / number) * (tm / number)
    return np.where(contacts > 0, PDOCKQ2_ORIGINAL(x), 0)


def mpdockq(
    contacts: Float[np.ndarray, "C C"],
    plddt: Float[np.ndarray, "C C"],
    protein: Bool[np.ndarray, " C"],
) -> float:
    """mpDockQ of all pairs of proteins (AlphaPulldown, `calculate_mpdockq.py`): the sum over both
    directions of log10(contacts + 1) times the mean pLDDT of both tokens of the contacts, of which
    `plddt` has the sum over the tokens of a. NaN for fewer than two proteins.
    """
    if protein.sum() < 2:
        return float("nan")
    mean = 100 * (plddt + plddt.T) / np.maximum(2 * contacts, 1)
    terms = np.log10(contacts + 1) * mean
    total = terms[np.ix_(protein, protein)].sum(keepdims=True)
    return float(MPDOCKQ(total)[0, 0])
