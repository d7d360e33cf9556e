"""Contacts whose PAE is low: those of Lambourne et al., and of SPOC (Schmid & Walter 2024)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.features.layout import Layout
from foldcp.metrics.chains import ChainRows
from foldcp.metrics.geometry.token_contacts import INTERFACE, TokenContacts

CONFIDENT_PAE = 4.0  # Å, strictly below
SPOC_PAE = 15.0  # Å, at most, in the better direction
SPOC_PLDDT = 0.5  # at least, of both residues
SPOC_CLASH = 1.0  # Å; residues with atoms nearer than this are left out


def contact_pae(
    pae: Float[Tensor, "R T"], contacts: TokenContacts, rows: ChainRows, cp: ContextParallel
) -> Float[np.ndarray, " n"]:
    """PAE in Å from the first token of each pair to the second, equal on every rank. Collective;
    what crosses the wire is a number for each contact.
    """
    own = (contacts.first >= rows.first) & (contacts.first < rows.first + rows.num_rows)
    row = torch.from_numpy(contacts.first[own] - rows.first).to(pae.device)
    column = torch.from_numpy(contacts.second[own]).to(pae.device)
    values = pae.new_zeros(len(own))
    values[torch.from_numpy(np.flatnonzero(own)).to(pae.device)] = pae[row, column]
    return cp.all_reduce(values).double().cpu().numpy()


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
