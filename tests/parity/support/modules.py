"""Modules of the network as Boltz calls them: forms of their inputs and outputs, and our call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from foldcp.config import Architecture
from foldcp.kernels.pair_bias_attention import PairBiasAttention
from foldcp.model.boltz2 import Boltz2
from foldcp.model.diffusion.conditioning import DiffusionConditioningOutput
from foldcp.model.diffusion.score_model import TokenAttention
from foldcp.model.layers.atoms import AtomTokens
from tests.parity.support.forms import (
    ALIGNMENT,
    ATOMS,
    PAIRS,
    SAMPLE_TOKENS,
    SAMPLES,
    SINGLE,
    TIME,
    TOKENS,
    Form,
    Share,
    token_bias,
    window_bias,
)

Outputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Module:
    """A module: its arguments and results by name, and what it makes of (network, share, *arguments
    in our form).

    Residuals are taken off where ours adds them.
    """

    inputs: dict[str, Form]  # by the names of Boltz's arguments
    outputs: dict[str, Form]  # in Boltz's order
    run: Callable[..., Outputs]


def compared(
    module: Module, model: Boltz2, share: Share, call: dict[str, Any]
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(output, ours, Boltz's) of a recorded call. What Boltz repeats for every sample we have
    once.
    """
    ours = module.run(
        model,
        share,
        *(form.to_shard(share, call["in"][name]) for name, form in module.inputs.items()),
    )
    for (name, form), x, theirs in zip(module.outputs.items(), ours, call["out"], strict=True):
        whole = form.to_boltz(share, x)
        yield name, whole, theirs[: len(whole)]


def modules(a: Architecture) -> dict[str, Module]:
    """By the names that Boltz's network gives them."""
    block = "pairformer_module.layers.0"
    score = "structure_module.score_model"
    return {
        "input_embedder": Module(
            {"ref_pos": ATOMS, "profile": TOKENS, "deletion_mean": TOKENS},
            {"s": TOKENS},
            input_embedder,
        ),
        "input_embedder.atom_encoder": Module(
            {}, {"q": ATOMS, "c": ATOMS, "pairs": ATOMS}, input_atoms
        ),
        "input_embedder.atom_attention_encoder": Module(
            {
                "q": SAMPLES,
                "c": ATOMS,
                "atom_enc_bias": window_bias(a.input_atom_blocks),
            },
            {"tokens": SAMPLE_TOKENS, "atoms": SAMPLES, "c": ATOMS},
            input_attention,
        ),
        "template_module": Module({"z": PAIRS}, {"z": PAIRS}, template),
        "msa_module": Module({"z": PAIRS, "emb": SINGLE}, {"z": PAIRS}, msa),
        **msa_layers("msa_module.layers.0"),
        **pair_updates(block),
        block: Module({"s": SINGLE, "z": PAIRS}, {"s": SINGLE, "z": PAIRS}, pairformer),
        f"{block}.attention": Module({"s": SINGLE, "z": PAIRS}, {"s": SINGLE}, attention),
        f"{block}.transition_s": Module(
            {"x": SINGLE}, {"s": SINGLE}, lambda m, _, x: (first(m).transition_s(x),)
        ),
        f"{block}.transition_z": Module(
            {"x": PAIRS}, {"z": PAIRS}, lambda m, _, x: (first(m).transition_z(x),)
        ),
        **diffusion(a, score),
    }


def first(model: Boltz2) -> Any:
    """The first block of the pairformer."""
    return model.pairformer_module.layers[0]


def msa_layers(layer: str) -> dict[str, Module]:
    transition = lambda m, _, x: (m.msa_module.layers[0].msa_transition(x),)  # noqa: E731
    return {
        layer: Module(
            {"z": PAIRS, "m": ALIGNMENT, "msa_mask": ALIGNMENT},
            {"z": PAIRS, "m": ALIGNMENT},
            msa_layer,
        ),
        f"{layer}.pair_weighted_averaging": Module(
            {"m": ALIGNMENT, "z": PAIRS}, {"m": ALIGNMENT}, averaging
        ),
        f"{layer}.msa_transition": Module({"x": ALIGNMENT}, {"m": ALIGNMENT}, transition),
        f"{layer}.outer_product_mean": Module(
            {"m": ALIGNMENT, "mask": ALIGNMENT}, {"z": PAIRS}, outer_product
        ),
    }


def pair_updates(block: str) -> dict[str, Module]:
    def update(name: str) -> Callable[..., Outputs]:
        return lambda m, share, z: (
            getattr(first(m), name)(z.clone(), share.features.token_mask) - z,
        )

    names = ("tri_mul_out", "tri_mul_in", "tri_att_start", "tri_att_end")
    return {f"{block}.{name}": Module({"x": PAIRS}, {"z": PAIRS}, update(name)) for name in names}


def diffusion(a: Architecture, score: str) -> dict[str, Module]:
    encoder = window_bias(a.atom_encoder_blocks)
    decoder = window_bias(a.atom_decoder_blocks)
    tokens = token_bias(a.token_transformer_blocks)
    conditioned = {
        "q": ATOMS,
        "c": ATOMS,
        "atom_enc_bias": encoder,
        "atom_dec_bias": decoder,
        "token_trans_bias": tokens,
    }
    return {
        "diffusion_conditioning": Module(
            {"s_trunk": TOKENS, "z_trunk": PAIRS}, conditioned, conditioning
        ),
        "diffusion_conditioning.pairwise_conditioner": Module(
            {"z_trunk": PAIRS, "token_rel_pos_feats": PAIRS}, {"z": PAIRS}, pairwise
        ),
        score: Module(
            {
                "s_inputs": TOKENS,
                "s_trunk": TOKENS,
                "r_noisy": SAMPLES,
                "times": TIME,
                **conditioned,
            },
            {"r": SAMPLES},
            score_network,
        ),
        f"{score}.single_conditioner": Module(
            {"times": TIME, "s_trunk": SINGLE, "s_inputs": SINGLE},
            {"s": SINGLE, "fourier": TIME},
            single_rows,
        ),
        f"{score}.atom_attention_encoder": Module(
            {"q": SAMPLES, "c": ATOMS, "atom_enc_bias": encoder, "r": SAMPLES},
            {"tokens": SAMPLE_TOKENS, "atoms": SAMPLES, "c": ATOMS},
            atom_encoder,
        ),
        f"{score}.token_transformer": Module(
            {"a": SAMPLE_TOKENS, "s": SINGLE, "bias": tokens},
            {"a": SAMPLE_TOKENS},
            token_transformer,
        ),
        f"{score}.atom_attention_decoder": Module(
            {"a": SAMPLE_TOKENS, "q": SAMPLES, "c": ATOMS, "atom_dec_bias": decoder},
            {"r": SAMPLES},
            atom_decoder,
        ),
    }


def input_embedder(
    model: Boltz2, share: Share, ref_pos: Tensor, profile: Tensor, deletion_mean: Tensor
) -> Outputs:
    features = replace(
        share.features, ref_pos=ref_pos, profile=profile, deletion_mean=deletion_mean
    )
    return (model.input_embedder(features),)


def input_atoms(model: Boltz2, share: Share) -> Outputs:
    encoder = model.input_embedder.atom_encoder
    c = encoder.atoms(share.features)
    return c, c, encoder.pairs(share.features, c)


def input_attention(model: Boltz2, share: Share, q: Tensor, c: Tensor, bias: Tensor) -> Outputs:
    encoder = model.input_embedder.atom_attention_encoder
    return *encoder(q, encoder.atom_encoder.modulations(c), bias, AtomTokens.of(share.features)), c


def template(model: Boltz2, share: Share, z: Tensor) -> Outputs:
    return (model.template_module(z.clone(), share.features) - z,)


def msa(model: Boltz2, share: Share, z: Tensor, s: Tensor) -> Outputs:
    return (model.msa_module(z.clone(), s, share.features, share.chosen) - z,)


def msa_layer(model: Boltz2, share: Share, z: Tensor, m: Tensor, mask: Tensor) -> Outputs:
    return model.msa_module.layers[0](z.clone(), m.clone(), share.features.token_mask, mask)


def averaging(model: Boltz2, share: Share, m: Tensor, z: Tensor) -> Outputs:
    average = model.msa_module.layers[0].pair_weighted_averaging
    return (average(m.clone(), z, share.features.token_mask) - m,)


def outer_product(model: Boltz2, share: Share, m: Tensor, mask: Tensor) -> Outputs:
    nothing = m.new_zeros(len(m), share.features.num_tokens, model.architecture.token_z)
    return (model.msa_module.layers[0].outer_product_mean(nothing, m, mask),)


def pairformer(model: Boltz2, share: Share, s: Tensor, z: Tensor) -> Outputs:
    return first(model).update(s, z.clone(), share.features.token_mask)


def attention(model: Boltz2, share: Share, s: Tensor, z: Tensor) -> Outputs:
    return (first(model).attention(s, z, share.features.token_mask),)


def conditioning(model: Boltz2, share: Share, s: Tensor, z: Tensor) -> Outputs:
    out = model.diffusion_conditioning(s, z, model.rel_pos, share.features)
    return out.q, out.c, out.encoder_bias, out.decoder_bias, torch.stack(out.token_bias)


def pairwise(model: Boltz2, share: Share, z: Tensor, relative: Tensor) -> Outputs:
    return (model.diffusion_conditioning.pairwise_conditioner(z, relative),)


def score_network(
    model: Boltz2,
    share: Share,
    s_inputs: Tensor,
    s: Tensor,
    r: Tensor,
    time: Tensor,
    *conditioned: Tensor,
) -> Outputs:
    network = model.structure_module.score_model
    *of_atoms, token_biases = conditioned
    conditioning = DiffusionConditioningOutput(*of_atoms, list(token_biases))
    cache = network.prepare(s, s_inputs, conditioning, share.features)
    return (network(r, network.conditioned(time[:1], cache)[0], cache),)


def single_rows(model: Boltz2, share: Share, time: Tensor, s: Tensor, s_inputs: Tensor) -> Outputs:
    conditioner = model.structure_module.score_model.single_conditioner
    return conditioner(conditioner.embed(s, s_inputs), time), conditioner.norm_fourier(
        conditioner.fourier_embed(time)
    )


def atom_encoder(
    model: Boltz2, share: Share, q: Tensor, c: Tensor, bias: Tensor, r: Tensor
) -> Outputs:
    encoder = model.structure_module.score_model.atom_attention_encoder
    moved = q + encoder.r_to_q_trans(r)
    return *encoder(
        moved, encoder.atom_encoder.modulations(c), bias, AtomTokens.of(share.features)
    ), c


def token_transformer(model: Boltz2, share: Share, a: Tensor, s: Tensor, bias: Tensor) -> Outputs:
    transformer = model.structure_module.score_model.token_transformer
    cp = share.cp
    mask = share.features.token_mask
    attention = [
        TokenAttention(cp, PairBiasAttention(), list(bias), layer, mask, transformer.dtype)
        for layer in range(len(bias))
    ]
    own = transformer(cp.shard(a, 1), transformer.modulations(s), attention)
    return (cp.all_gather(own, 1),)


def atom_decoder(
    model: Boltz2, share: Share, a: Tensor, q: Tensor, c: Tensor, bias: Tensor
) -> Outputs:
    decoder = model.structure_module.score_model.atom_attention_decoder
    return (
        decoder(a, q, decoder.atom_decoder.modulations(c), bias, AtomTokens.of(share.features)),
    )
