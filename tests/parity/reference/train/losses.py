"""Boltz's losses and their gradients, of random outputs of a network, in fp64 and fp32."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from boltz.data.feature.symmetry import all_different_after_swap, minimum_lddt_symmetry_coords
from boltz.model.loss.bfactor import bfactor_loss_fn
from boltz.model.loss.confidencev2 import confidence_loss
from boltz.model.loss.distogramv2 import distogram_loss
from boltz.model.modules.diffusionv2 import AtomDiffusion
from boltz.model.modules.utils import randomly_rotate
from cases import LossCase
from torch import Tensor

from train.structures import as_prediction, read
from train.truth import exact_distances, with_truth

SIGMA_DATA = 16.0
PAIR_CHANNELS = 4
KEPT = (
    "asym_id",
    "mol_type",
    "token_pad_mask",
    "atom_pad_mask",
    "coords",
    "atom_resolved_mask",
    "bfactor",
)


@contextmanager
def in_double() -> Iterator[None]:
    """Boltz casts to fp32 here and there."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(Tensor, "float", Tensor.double))
        stack.enter_context(patch.object(torch, "float32", torch.float64))
        yield


def losses(case: LossCase, batch: dict[str, Any] | None) -> dict[str, Any]:
    """Inputs, and results in both types."""
    seed = zlib.crc32(case.name.encode())
    feats = read(case.structure) if batch is None else with_truth(batch, seed, torch.float64)
    feats["symmetries"] = symmetries(feats)
    outputs = random_outputs(feats, case, seed)
    with exact_distances():
        single = results(feats, outputs, torch.float32)
        with in_double():
            double = results(feats, outputs, torch.float64)
    index = {
        "atom_token": feats["atom_to_token"][0].argmax(-1),
        "rep_atom": feats["token_to_rep_atom"][0].argmax(-1),
        "frame_atoms": feats["frames_idx"].reshape(-1, 3),
        "lddt_atoms": feats["r_set_to_rep_atom"][0].argmax(-1),
    }
    return {
        "feats": {name: feats[name][0] for name in KEPT} | index,
        "symmetries": feats["symmetries"],
        "outputs": outputs,
        "fp64": double,
        "fp32": single,
    }


def symmetries(feats: dict[str, Any]) -> dict[str, Any]:
    """Assignments of chains as Boltz enumerates them, and of atoms of residues."""
    chain_of_atom = feats["asym_id"][0][feats["atom_to_token"][0].argmax(-1)]
    chain_of_atom = chain_of_atom[feats["atom_pad_mask"][0] > 0]
    entity = {
        int(chain): int(e)
        for chain, e in zip(feats["asym_id"][0], feats["entity_id"][0], strict=True)
    }
    spans = {}
    for chain in entity:
        atoms = (chain_of_atom == chain).nonzero()[:, 0]
        spans[chain] = (int(atoms[0]), int(atoms[-1]) + 1)
    swaps = [
        [
            (*spans[a], *spans[b], i, j)
            for j, b in enumerate(spans)
            if entity[a] == entity[b] and _length(spans[a]) == _length(spans[b])
        ]
        for i, a in enumerate(spans)
    ]
    chains = [c for c in itertools.product(*swaps) if all_different_after_swap(c)]
    return {
        "chains": [[list(swap) for swap in c] for c in chains[:20]],
        "residues": [
            [[list(pair) for pair in swap] for swap in alternatives]
            for alternatives in feats.get("residue_swaps", [])
        ],
    }


def _length(span: tuple[int, int]) -> int:
    return span[1] - span[0]


def random_outputs(feats: dict[str, Any], case: LossCase, seed: int) -> dict[str, Tensor]:
    """What a network might give: logits, and structures with noise."""
    generator = torch.Generator().manual_seed(seed)
    N = feats["token_pad_mask"].shape[1]
    M = case.multiplicity

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    truth = feats["coords"][0].double().repeat_interleave(M, 0)
    torch.manual_seed(seed)
    moved = randomly_rotate(truth) + 3 * normal(M, 1, 3)
    sigmas = SIGMA_DATA * (-1.2 + 1.5 * normal(M)).exp()
    noise = normal(*moved.shape) * sigmas[:, None, None].clamp(0.3, 5.0)
    return {
        "z": normal(1, N, N, PAIR_CHANNELS),
        "distogram_weight": normal(64, PAIR_CHANNELS),
        "distogram_bias": normal(64),
        "bfactor": normal(1, N, 64),
        "target": moved,
        "sigmas": sigmas,
        "denoised": moved + noise,
        "coords": as_prediction(feats, seed),
        "plddt": normal(1, N, 50),
        "resolved": normal(1, N, 2),
        "pair_rows": normal(2, N, 64),  # of PDE and PAE: logits are products of these
        "pair_columns": normal(2, N, 64),
    }


def results(
    feats: dict[str, Any], outputs: dict[str, Tensor], dtype: torch.dtype
) -> dict[str, Any]:
    """Losses, and their gradients with respect to the outputs."""
    feats = {
        name: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x
        for name, x in feats.items()
    }
    leaves = {name: x.to(dtype, copy=True).requires_grad_() for name, x in outputs.items()}
    found: dict[str, Tensor] = {}
    z = leaves["z"]
    logits = torch.nn.functional.linear(
        z + z.transpose(1, 2), leaves["distogram_weight"], leaves["distogram_bias"]
    )
    found["distogram"], _ = distogram_loss({"pdistogram": logits[:, :, :, None]}, feats)
    found["bfactor"] = bfactor_loss_fn({"pbfactor": leaves["bfactor"]}, feats)
    M = len(leaves["denoised"])
    unresolved = {**feats, "coords": feats["coords"][0].repeat_interleave(M, 0)}
    network = SimpleNamespace(
        loss_weight=lambda sigma: (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2,
        zero=torch.zeros((), dtype=dtype),
    )
    diffusion = AtomDiffusion.compute_loss(
        network,  # type: ignore[arg-type]
        unresolved,
        {
            "denoised_atom_coords": leaves["denoised"],
            "sigmas": outputs["sigmas"].to(dtype),
            "aligned_true_atom_coords": outputs["target"].to(dtype),
        },
        multiplicity=M,
    )["loss_breakdown"]
    found |= {"mse": diffusion["mse_loss"], "smooth_lddt": diffusion["smooth_lddt_loss"]}
    confidence, assigned = _confidence(feats, outputs["coords"].to(dtype), leaves)
    found |= confidence
    torch.stack(list(found.values())).sum().backward()
    return {
        "losses": {name: loss.detach() for name, loss in found.items()},
        "gradients": {name: x.grad for name, x in leaves.items() if x.grad is not None},
        "assigned": assigned,
    }


def _confidence(
    feats: dict[str, Any], coords: Tensor, leaves: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The losses of one sample, to the truth as it is assigned to it, and that truth."""
    num_atoms = int(feats["atom_pad_mask"].sum())
    found = feats["symmetries"]
    assignment = {
        **feats,
        "all_coords": feats["coords"][:, 0, :num_atoms],
        "all_resolved_mask": feats["atom_resolved_mask"][:, :num_atoms],
        "crop_to_all_atom_map": torch.arange(num_atoms)[None],
        "chain_symmetries": [found["chains"]],
        "amino_acids_symmetries": [found["residues"]],
        "ligand_symmetries": [[]],
    }
    true_coords, _, resolved = minimum_lddt_symmetry_coords(coords, assignment, 0)
    resolved = resolved.to(coords)
    pairs = leaves["pair_rows"][:, :, None] * leaves["pair_columns"][:, None]
    breakdown = confidence_loss(
        {
            "plddt_logits": leaves["plddt"],
            "resolved_logits": leaves["resolved"],
            "pde_logits": pairs[:1],
            "pae_logits": pairs[1:],
            "sample_atom_coords": coords,
        },
        {
            **feats,
            "frames_idx": feats["frames_idx"][:, 0],
            "frame_resolved_mask": feats["frame_resolved_mask"][:, 0],
        },
        true_coords,
        resolved,
        token_level_confidence=True,
        alpha_pae=1.0,
    )["loss_breakdown"]
    losses = {name: breakdown[f"{name}_loss"] for name in ("plddt", "pde", "resolved", "pae")}
    return losses, {"coords": true_coords[0], "resolved": resolved[0]}
