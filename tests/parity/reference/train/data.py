"""Boltz's crops, filter of clashing chains and sampling weights, of structures that are made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from boltz.data.crop import boltz as cropping
from boltz.data.filter.static.polymer import ClashingChainsFilter
from boltz.data.sample.cluster import ClusterSampler

LIMITS = ((64, 10_000), (200, 300), (40, 400))
KINDS = {"protein": 0, "dna": 1, "ligand": 3}


def data() -> dict[str, Any]:
    """Inputs and results."""
    rng = np.random.default_rng(7)
    return {
        "crops": [crop(rng, *LIMITS[i % len(LIMITS)]) for i in range(60)],
        "clashes": [clash(rng) for _ in range(100)],
        "weights": weights(rng),
    }


def crop(rng: np.random.Generator, max_tokens: int, max_atoms: int) -> dict[str, Any]:
    """Chains as random walks, the last of which is a ligand of three components."""
    lengths = [*rng.integers(5, 80, size=int(rng.integers(1, 4))).tolist(), 15]
    units = [*(np.arange(length) for length in lengths[:-1]), np.repeat(np.arange(3), 5)]
    total = sum(lengths)
    tokens = np.zeros(
        total,
        [
            ("token_idx", int), ("asym_id", int), ("res_idx", int), ("resolved_mask", bool),
            ("center_coords", float, 3), ("atom_num", int),
        ],
    )  # fmt: skip
    tokens["token_idx"] = np.arange(total)
    tokens["asym_id"] = np.repeat(np.arange(len(lengths)), lengths)
    tokens["res_idx"] = np.concatenate(units)
    tokens["resolved_mask"] = rng.random(total) < 0.9
    walks = [rng.normal(scale=2.2, size=(n, 3)).cumsum(0) + rng.normal(size=3) for n in lengths]
    tokens["center_coords"] = np.concatenate(walks)
    is_ligand = tokens["asym_id"] == len(lengths) - 1
    tokens["atom_num"] = np.where(is_ligand, 1, rng.integers(4, 12, size=total))
    query = int(rng.choice(np.flatnonzero(tokens["resolved_mask"])))
    neighborhood = int(rng.integers(0, 21)) * 2
    bonds = np.zeros(0, [("token_1", int), ("token_2", int)])
    structure = SimpleNamespace(
        mask=np.ones(len(lengths), dtype=bool),
        chains=np.zeros(len(lengths), [("asym_id", int)]),
        interfaces=np.zeros(0, [("chain_1", int), ("chain_2", int)]),
    )
    cropper = cropping.BoltzCropper(neighborhood, neighborhood)
    with (
        patch.object(cropping, "pick_chain_token", lambda *_: tokens[query]),
        patch.object(cropping, "replace", lambda whole, **left: SimpleNamespace(**left)),
    ):
        cropped = cropper.crop(
            SimpleNamespace(tokens=tokens, bonds=bonds, structure=structure),
            max_tokens,
            np.random.RandomState(0),
            max_atoms=max_atoms,
            chain_id=0,
        )
    return {
        "chain": tensor(tokens["asym_id"]),
        "unit": tensor(tokens["res_idx"]),
        "num_atoms": tensor(tokens["atom_num"]),
        "center": tensor(tokens["center_coords"]),
        "resolved": tensor(tokens["resolved_mask"]).long(),
        "query": query,
        "neighborhood": neighborhood,
        "max_tokens": max_tokens,
        "max_atoms": max_atoms,
        "crop": tensor(cropped.tokens["token_idx"]),
    }


def clash(rng: np.random.Generator) -> dict[str, Any]:
    """Chains of random walks in one place, some of them copies on top of each other."""
    chains = [
        rng.normal(scale=1.5, size=(int(rng.integers(4, 15)), 3)).cumsum(0)
        + rng.normal(scale=1.5, size=3)
        for _ in range(int(rng.integers(2, 6)))
    ]
    if rng.random() < 0.3:
        chains.append(chains[0].copy())
    table = np.zeros(len(chains), [("atom_idx", int), ("atom_num", int)])
    table["atom_num"] = [len(chain) for chain in chains]
    table["atom_idx"] = np.cumsum(table["atom_num"]) - table["atom_num"]
    atoms = np.zeros(sum(map(len, chains)), [("coords", float, 3), ("is_present", bool)])
    atoms["coords"] = np.concatenate(chains).astype(np.float32)
    atoms["is_present"] = True
    kept = ClashingChainsFilter().filter(SimpleNamespace(chains=table, atoms=atoms))
    return {
        "coords": [tensor(chain.astype(np.float32)) for chain in chains],
        "dropped": np.flatnonzero(~kept).tolist(),
    }


def weights(rng: np.random.Generator) -> dict[str, Any]:
    """Twenty structures with chains of eight clusters, and interfaces of half of the pairs."""
    records = []
    structures = []
    for _ in range(20):
        chains = [
            (str(rng.choice(list(KINDS))), int(rng.integers(0, 8)))
            for _ in range(int(rng.integers(1, 5)))
        ]
        pairs = [(i, j) for j in range(len(chains)) for i in range(j) if rng.random() < 0.5]
        structures.append({"chains": [list(chain) for chain in chains], "interfaces": pairs})
        records.append(
            SimpleNamespace(
                chains=[
                    SimpleNamespace(mol_type=KINDS[kind], cluster_id=cluster, valid=True)
                    for kind, cluster in chains
                ],
                interfaces=[SimpleNamespace(chain_1=i, chain_2=j, valid=True) for i, j in pairs],
            )
        )
    drawing = Drawing()
    next(ClusterSampler().sample(records, drawing))  # type: ignore[arg-type]
    return {"structures": structures, "weights": tensor(drawing.weights)}


class Drawing:
    """A source of random numbers that keeps the weights that it is given."""

    def choice(self, count: int, p: np.ndarray) -> int:
        self.weights = p
        return 0


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))
