"""Sizes and precision of a Boltz-2 network. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as short  # a value may be long
from typing import Any, Literal

# padding, 20 amino acids, UNK, 5 + 5 nucleotides and unknowns, gap: Boltz's vocabulary
NUM_RES_TYPES = 33
NUM_METHODS = 12
NUM_MOL_TYPES = 4
NUM_BOND_TYPES = 7  # 0 is no bond
NUM_ELEMENTS = 128
ATOM_NAME_CHARS = (4, 64)
NUM_CONTACT_KINDS = 5  # unspecified, unselected, pocket>binder, binder>pocket, contact
WINDOW_QUERIES = 32
WINDOW_KEYS = 128

# With which a network computes: fp32 throughout; bf16 matrix products over pairs of tokens, with
# the pair representation kept in fp32 (mixed) or in bf16, and then what is as large beside it in 8
# bits (bf16-int8). See foldcp.checkpoint.precision.
Precision = Literal["fp32", "mixed", "bf16", "bf16-int8"]
KernelSetting = Literal["auto", "torch", "triton"]  # the implementation of the operations


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Widths, depths and switches; the defaults are those of Boltz-2's structure model."""

    atom_s: int = 128
    atom_z: int = 16
    token_s: int = 384
    token_z: int = 128
    msa_s: int = 64
    template_dim: int = 64
    fourier_dim: int = 256
    token_heads: int = 16
    diffusion_heads: int = 16
    confidence_heads: int = 16
    pair_heads: int = 4
    pair_head_width: int = 32
    averaging_heads: int = 8
    averaging_head_width: int = 32
    outer_product_width: int = 32
    input_atom_heads: int = 4
    input_atom_blocks: int = 3
    atom_heads: int = 4
    atom_encoder_blocks: int = 3
    atom_decoder_blocks: int = 3
    token_transformer_blocks: int = 24
    conditioning_transitions: int = 2
    template_blocks: int = 2
    msa_blocks: int = 4
    pairformer_blocks: int = 64
    confidence_blocks: int = 8
    num_distogram_bins: int = 64
    num_plddt_bins: int = 50
    num_pae_bins: int = 64
    num_pde_bins: int = 64
    contact_cutoff_min: float = 4.0  # Å
    contact_cutoff_max: float = 20.0
    sigma_data: float = 16.0  # Å
    fix_sym_check: bool = True
    cyclic_pos_enc: bool = True
    use_templates: bool = True
    template_by_visibility: bool = True  # a template's tokens see their group, else their chain
    bond_types: bool = True
    predict_bfactor: bool = True


@dataclass(frozen=True, kw_only=True)
class DiffusionProcess:
    """The sampler of `boltz predict` for Boltz-2; sigmas in Å."""

    sigma_min: float = 0.0001
    sigma_max: float = 160.0
    rho: float = 7.0
    gamma_0: float = 0.8
    gamma_min: float = 1.0
    noise_scale: float = 1.003
    step_scale: float = 1.5


BOLTZ2 = Architecture()
TINY = Architecture(
    atom_s=16,
    atom_z=8,
    token_s=32,
    token_z=16,
    msa_s=16,
    template_dim=16,
    fourier_dim=32,
    token_heads=4,
    diffusion_heads=4,
    confidence_heads=4,
    pair_heads=1,
    pair_head_width=8,
    averaging_heads=2,
    averaging_head_width=8,
    outer_product_width=8,
    input_atom_heads=2,
    input_atom_blocks=1,
    atom_heads=2,
    atom_encoder_blocks=1,
    atom_decoder_blocks=1,
    token_transformer_blocks=2,
    template_blocks=1,
    msa_blocks=1,
    pairformer_blocks=1,
    confidence_blocks=1,
)
UNTRAINED = {"tiny": TINY, "boltz2": BOLTZ2}


# The option of each field in a checkpoint's hyper_parameters: (section, name, Boltz's default).
OPTIONS: dict[str, tuple[str, str, Any]] = {
    "atom_s": ("", "atom_s", 128),
    "atom_z": ("", "atom_z", 16),
    "token_s": ("", "token_s", 384),
    "token_z": ("", "token_z", 128),
    "msa_s": ("msa_args", "msa_s", 64),
    "template_dim": ("template_args", "template_dim", 64),
    "fourier_dim": ("score_model_args", "dim_fourier", 256),
    "token_heads": ("pairformer_args", "num_heads", 16),
    "diffusion_heads": ("score_model_args", "token_transformer_heads", 16),
    "pair_heads": ("pairformer_args", "pairwise_num_heads", 4),
    "pair_head_width": ("pairformer_args", "pairwise_head_width", 32),
    "input_atom_heads": ("embedder_args", "atom_encoder_heads", 4),
    "input_atom_blocks": ("embedder_args", "atom_encoder_depth", 3),
    "atom_heads": ("score_model_args", "atom_encoder_heads", 4),
    "atom_encoder_blocks": ("score_model_args", "atom_encoder_depth", 3),
    "atom_decoder_blocks": ("score_model_args", "atom_decoder_depth", 3),
    "token_transformer_blocks": ("score_model_args", "token_transformer_depth", 24),
    "conditioning_transitions": (
        "score_model_args",
        "conditioning_transition_layers",
        2,
    ),
    "template_blocks": ("template_args", "template_blocks", 2),
    "msa_blocks": ("msa_args", "msa_blocks", 4),
    "pairformer_blocks": ("pairformer_args", "num_blocks", 64),
    "confidence_blocks": ("confidence_model_args.pairformer_args", "num_blocks", 8),
    "confidence_heads": ("confidence_model_args.pairformer_args", "num_heads", 16),
    "num_distogram_bins": ("", "num_bins", 64),
    "num_plddt_bins": ("confidence_model_args.confidence_args", "num_plddt_bins", 50),
    "num_pae_bins": ("confidence_model_args.confidence_args", "num_pae_bins", 64),
    "num_pde_bins": ("confidence_model_args.confidence_args", "num_pde_bins", 64),
    "contact_cutoff_min": ("", "conditioning_cutoff_min", 4.0),
    "contact_cutoff_max": ("", "conditioning_cutoff_max", 20.0),
    "sigma_data": ("score_model_args", "sigma_data", 16.0),
    "fix_sym_check": ("", "fix_sym_check", False),
    "cyclic_pos_enc": ("", "cyclic_pos_enc", False),
    "use_templates": ("", "use_templates", False),
    "template_by_visibility": ("", "use_templates_v2", False),
    "bond_types": ("", "bond_type_feature", False),
    "predict_bfactor": ("", "predict_bfactor", False),
}

# Options that change the computation and that this network has in one form only: (section, name,
# Boltz's default, ours).
REQUIRED: tuple[tuple[str, str, Any, Any], ...] = (
    ("", "confidence_prediction", True, True),
    ("", "token_level_confidence", True, True),
    ("", "atoms_per_window_queries", 32, WINDOW_QUERIES),
    ("", "atoms_per_window_keys", 128, WINDOW_KEYS),
    ("", "use_no_atom_char", False, False),
    ("", "use_atom_backbone_feat", False, False),
    ("", "use_residue_feats_atoms", False, False),
    ("embedder_args", "add_mol_type_feat", False, True),
    ("embedder_args", "add_method_conditioning", False, True),
    ("embedder_args", "add_modified_flag", False, True),
    ("embedder_args", "add_cyclic_flag", False, True),
    ("msa_args", "use_paired_feature", True, True),
    ("pairformer_args", "post_layer_norm", False, False),
    ("score_model_args", "transformer_post_ln", False, False),
    ("confidence_model_args", "add_s_to_z_prod", False, True),
    ("confidence_model_args", "add_s_input_to_s", False, True),
    ("confidence_model_args", "add_z_input_to_z", False, True),
    ("confidence_model_args", "maximum_bond_distance", 0, 0),
    ("confidence_model_args", "num_dist_bins", 64, 64),
    ("confidence_model_args", "max_dist", 22, 22),
    ("confidence_model_args.confidence_args", "use_separate_heads", False, True),
)


# Limits of the sizes in a checkpoint.
MAX_WIDTH = 65_536
MAX_DEPTH = 1_024


def read_architecture(hyper_parameters: Mapping[str, Any]) -> Architecture:
    """The architecture that a Boltz-2 checkpoint's `hyper_parameters` describe.

    Raises ValueError naming an option that asks for something that Boltz-2's structure model does
    not have, or whose value is implausible.
    """
    for section, name, default, ours in REQUIRED:
        value = _section(hyper_parameters, section).get(name, default)
        if value != ours:
            raise ValueError(
                f"option {_option(section, name)} is {short(value)}, only {ours!r} is supported"
            )
    values = {}
    for field, (section, name, default) in OPTIONS.items():
        value = _section(hyper_parameters, section).get(name, default)
        if not _is_plausible(field, value, default):
            expected = (
                "True or False" if isinstance(default, bool) else f"a number such as {default}"
            )
            raise ValueError(
                f"option {_option(section, name)} is {short(value)}; expected {expected}"
            )
        values[field] = value
    return Architecture(**values)


def to_hyper_parameters(architecture: Architecture) -> dict[str, Any]:
    """The inverse of `read_architecture`, for an architecture that it has read.

    Checkpoints do not state three of the widths, which all of Boltz-2's have in common.
    """
    tree: dict[str, Any] = {}
    values = [
        (section, name, getattr(architecture, field))
        for field, (section, name, _) in OPTIONS.items()
    ]
    values += [(section, name, ours) for section, name, _, ours in REQUIRED]
    for section, name, value in values:
        node = tree
        for part in section.split(".") if section else ():
            node = node.setdefault(part, {})
        node[name] = value
    assert read_architecture(tree) == architecture
    return tree


def _option(section: str, name: str) -> str:
    return f"{section}.{name}".lstrip(".")


def _is_plausible(field: str, value: Any, default: Any) -> bool:
    """Whether an option has the type of its default, and a plausible size."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if not isinstance(value, int if isinstance(default, int) else (int, float)):
        return False
    is_depth = field.endswith(("blocks", "transitions"))
    if value == 0:
        return is_depth or field == "contact_cutoff_min"
    return 0 < value <= (MAX_DEPTH if is_depth else MAX_WIDTH)


def _section(tree: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    for part in path.split(".") if path else ():
        tree = tree.get(part) or {}
        if not isinstance(tree, Mapping):
            raise ValueError(
                f"section {path} of the options is {short(tree)}; expected names and values"
            )
    return tree
