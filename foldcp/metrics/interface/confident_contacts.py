"""Contacts whose PAE is low: those of Lambourne et al., and of SPOC (Schmid & Walter 2024)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.layout import Layout
from foldcp.metrics.chains import ChainRows
from foldcp.metrics.geometry.token_contacts import INTERFACE, TokenContacts

CONFIDENT_PAE = 4.0  # Å, strictly below
SPOC_PAE = 15.0  # Å, at most, in the better direction
SPOC_PLDDT = 0.5  # at least, of both residues
SPOC_CLASH = 1.0  # Å; residues with atoms nearer than this are left out


class ContactPae:
    """Where the PAE of the contacts of a sample is."""

    def __init__(self, contacts: TokenContacts, rows: ChainRows, device: torch.device) -> None:
        self.number = len(contacts.first)
        # They are in order, so those of this rank's rows follow one another.
        start, stop = np.searchsorted(contacts.first, (rows.first, rows.first + rows.num_rows))
        self.own = slice(int(start), int(stop))
        place = np.stack([contacts.first[self.own] - rows.first, contacts.second[self.own]])
        self.place: Int[Tensor, "2 m"] = torch.from_numpy(place).to(device)

    def of(self, pae: Float[Tensor, "R T"], cp: ContextParallel) -> Float[Tensor, " n"]:
        """PAE in Å from the first token of each pair to the second, equal on every rank.
        Collective; what crosses the wire is a number for each contact.
        """
        row, column = self.place
        values = pae.new_zeros(self.number)
        values[self.own] = pae[row, column]
        return cp.all_reduce(values)


def confident_contacts(
    contacts: TokenContacts, pae: Float[np.ndarray, " n"], layout: Layout
) -> Float[np.ndarray, "C C"]:
    """[a, b]: pairs of residues in contact by the rules of Interactome3D whose PAE from a to b is
    below 4 Å (AlphaJudge, after Lambourne et al.).
    """
    return _by_chain(contacts, layout, contacts.interactome & (pae < CONFIDENT_PAE))


def spoc_contacts(
    contacts: TokenContacts,
    pae: Float[np.ndarray, " n"],
    plddt: Float[np.ndarray, " T"],
    layout: Layout,
) -> Float[np.ndarray, "C C"]:
    """[a, b]: SPOC's contacts of proteins, equal both ways: atoms nearer than 5 Å, pLDDT at least
    0.5, PAE at most 15 Å in the better direction, without residues that clash.
    """
    protein = np.array(layout.chain_kinds) == "protein"
    trusted = protein[layout.token_chain] & (plddt >= SPOC_PLDDT)
    near = contacts.distance < INTERFACE
    near &= trusted[contacts.first] & trusted[contacts.second]
    clashing = np.zeros(len(plddt), dtype=bool)
    clashing[contacts.first[near & (contacts.distance < SPOC_CLASH)]] = True
    near &= ~clashing[contacts.first] & ~clashing[contacts.second]
    better = np.minimum(pae, pae[_reverse(contacts, len(plddt))])
    return _by_chain(contacts, layout, near & (better <= SPOC_PAE))


def _reverse(contacts: TokenContacts, num_tokens: int) -> np.ndarray:
    """The place of the reverse of each pair; they are in order."""
    keys = contacts.first * num_tokens + contacts.second
    return np.searchsorted(keys, contacts.second * num_tokens + contacts.first)


def _by_chain(
    contacts: TokenContacts, layout: Layout, mask: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, "C C"]:
    """How many of the pairs that a mask names each pair of chains has."""
    C = len(layout.chain_kinds)
    chain = layout.token_chain
    place = chain[contacts.first[mask]] * C + chain[contacts.second[mask]]
    return np.bincount(place, minlength=C * C).reshape(C, C).astype(float)
