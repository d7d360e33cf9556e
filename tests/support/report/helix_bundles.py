"""Coordinates of invented structures: bundles of ideal helices, one for each chain."""

from __future__ import annotations

from functools import cache

import numpy as np

from foldcp.features.layout import Layout

HELIX = 24  # residues
GAP = 5  # residues of a loop between two helices
# (radius in Å, angle in degrees, rise in Å) of the atoms of an ideal helix.
HELIX_ATOMS = {
    "N": (1.55, -27.7, -0.9),
    "CA": (2.28, 0.0, 0.0),
    "C": (1.68, 26.1, 1.1),
    "O": (2.03, 31.0, 2.3),
    "CB": (3.3, -18.0, -0.4),
    "OG": (3.7, -30.0, 0.4),
}


def bundle_coordinates(layout: Layout) -> np.ndarray:
    """Bundles of helices, one beside the other on a circle; atoms in the layout's order."""
    num_chains = len(layout.chain_names)
    radius = 5.0 if num_chains < 3 else 14.5 / np.sin(np.pi / num_chains)
    coords = np.zeros((len(layout.atom_token), 3), np.float32)
    for atom, (token, name) in enumerate(zip(layout.atom_token, layout.atom_name, strict=True)):
        chain = layout.token_chain[token]
        place = int(layout.token_residue[token]) - 1
        angle = 2 * np.pi * chain / num_chains
        local = _bundle_atom(place, name)
        turned = np.array(
            [
                local[0] * np.cos(angle) - local[1] * np.sin(angle),
                local[0] * np.sin(angle) + local[1] * np.cos(angle),
                local[2],
            ]
        )
        centre = radius * np.array([np.cos(angle), np.sin(angle), 0.0])
        coords[atom] = (turned + centre)[[0, 2, 1]] * [1, 1, -1]
    return coords


@cache
def _bundle_atom(place: int, name: str) -> np.ndarray:
    """An atom of a residue in a bundle of antiparallel helices, 3 x n of them."""
    unit, step = divmod(place, HELIX + GAP)
    if step < HELIX:
        return _helix_atom(unit, step, name)
    # A loop: from the end of one helix to the beginning of the next, in an arc.
    share = (step - HELIX + 1) / (GAP + 1)
    start = _helix_atom(unit, HELIX - 1, "CA")
    end = _helix_atom(unit + 1, 0, "CA")
    arc = np.array([0.0, 0.0, (1 if unit % 2 == 0 else -1) * 5 * np.sin(np.pi * share)])
    offset = _helix_atom(unit, step, name) - _helix_atom(unit, step, "CA")
    return start + share * (end - start) + arc + offset


def _helix_atom(unit: int, step: int, name: str) -> np.ndarray:
    radius, angle, rise = HELIX_ATOMS[name]
    up = unit % 2 == 0
    turn = np.radians(100.0 * step + angle)
    height = 1.5 * step + rise - 0.75 * HELIX
    column, row = divmod(unit, 3)
    row = row if column % 2 == 0 else 2 - row
    centre = np.array([10.0 * column, 9.5 * (row - 1), 0.0])
    local = np.array([radius * np.cos(turn), radius * np.sin(turn), height])
    if not up:  # turned over, so that it stays right-handed
        local = local * np.array([1.0, -1.0, -1.0])
    return centre + local
