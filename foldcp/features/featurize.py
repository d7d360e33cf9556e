"""Complex and alignments -> the typed, O(N) input of the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foldcp.chemistry.vocabulary import GAP
from foldcp.complex import Complex
from foldcp.features.atoms import Augmentation, atom_features
from foldcp.features.msa.chain_alignments import AlignmentSettings
from foldcp.features.msa.features import Alignment, align, alignment_features
from foldcp.features.pairs import contacts, covalent_bonds, cyclic_period, token_bonds
from foldcp.features.templates.features import template_features
from foldcp.features.tokens import Tables, tables
from foldcp.files import MAX_BYTES

# Experimental methods and their classes (Boltz-2); "" is X-ray diffraction.
METHODS = {
    "": 1,
    "md": 0,
    "x-ray diffraction": 1,
    "electron microscopy": 2,
    "solution nmr": 3,
    **dict.fromkeys(
        [
            "solid-state nmr", "neutron diffraction", "electron crystallography", "fiber diffraction",
            "powder diffraction", "infrared spectroscopy", "fluorescence transfer", "epr", "theoretical model",
            "solution scattering", "other",
        ],
        4,
    ),
    "afdb": 5,
    "boltz-1": 6,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Layout:
    """Names of chains, tokens and atoms: what a structure file or a table needs and the network
    does not.

    T = tokens without padding, A = atoms without padding, C = chains; numpy arrays.
    """

    chain_names: list[str]  # [C]
    chain_kinds: list[str]  # [C] protein, dna, rna or ligand
    chain_entities: Int[np.ndarray, " C"]  # equal numbers for copies of one molecule
    token_chain: Int[np.ndarray, " T"]  # index of the chain
    token_residue: Int[np.ndarray, " T"]  # residue number within the chain, from 1
    token_name: list[str]  # [T] CCD code of the residue
    atom_token: Int[np.ndarray, " A"]  # index of the token
    atom_name: list[str]  # [A] CCD atom name
    atom_element: Int[np.ndarray, " A"]  # atomic number
    chain_msa_depth: Int[
        np.ndarray, " C"
    ]  # different rows that the network got of the chain's alignment, query included


@dataclass(frozen=True, eq=False)
class Features:
    """One complex as the network reads it. N tokens (padded), S MSA rows, A atoms (padded to 32), T
    templates, E bonds, K contacts. Every field is O(N); each rank builds its own rows of anything
    quadratic.

    Where a token or an atom is padding, an index field holds 0 and `msa` the gap; Boltz's one-hot
    vectors are all zero there, so whoever makes one-hots multiplies them by the mask. `msa_mask`,
    and the deletions of an alignment without any, are expanded tensors that occupy a row or
    nothing.
    """

    layout: Layout
    # tokens
    res_type: Int[Tensor, " N"]  # index in the 33-word vocabulary
    mol_type: Int[Tensor, " N"]  # 0 protein, 1 DNA, 2 RNA, 3 other
    token_index: Int[Tensor, " N"]
    residue_index: Int[Tensor, " N"]  # from 0
    asym_id: Int[Tensor, " N"]  # chain
    entity_id: Int[Tensor, " N"]  # molecule
    sym_id: Int[Tensor, " N"]  # copy of the molecule
    cyclic_period: Float[Tensor, " N"]  # length of a cyclic chain, 0 for the others
    modified: Int[Tensor, " N"]
    method: Int[Tensor, " N"]  # experimental method to imitate
    token_mask: Float[Tensor, " N"]  # 1 token, 0 padding
    rep_atom: Int[
        Tensor, " N"
    ]  # the token's representative atom (CB; CA of glycine; C4/C2 of a base; the atom)
    center_atom: Int[Tensor, " N"]  # the token's centre atom (CA, C1', the atom)
    frame_atoms: Int[
        Tensor, "N 3"
    ]  # the three atoms of the token's frame (N, CA, C; C1', C3', C4')
    # pairs of tokens, as lists
    bonds: Int[Tensor, "E 3"]  # (i, j, bond type + 1); both directions are listed
    contacts: Int[Tensor, "K 3"]  # (i, j, kind of contact); both directions are listed
    contact_threshold: Float[Tensor, " K"]  # Å
    contact_default: int  # kind of every pair that is not listed: 0 unspecified, 1 unselected
    # alignment
    msa: Int[Tensor, "S N"]  # int8, index in the 33-word vocabulary
    has_deletion: Bool[Tensor, "S N"]
    deletion_value: Float[Tensor, "S N"]
    paired: Bool[Tensor, "S N"]
    msa_mask: Float[Tensor, "S N"]
    profile: Float[Tensor, "N 33"]
    deletion_mean: Float[Tensor, " N"]
    # atoms
    ref_pos: Float[Tensor, "A 3"]  # Å
    ref_charge: Float[Tensor, " A"]
    ref_element: Int[Tensor, " A"]  # atomic number, 0..127
    ref_atom_name_chars: Int[Tensor, "A 4"]  # character - 32, 0..63
    ref_space_uid: Int[Tensor, " A"]  # equal for the atoms of one conformer
    atom_mask: Float[Tensor, " A"]
    atom_token: Int[Tensor, " A"]  # index of the token; 0 for padding, where atom_mask is 0
    # templates
    template_res_type: Int[Tensor, "T N"]
    template_frame_rot: Float[Tensor, "T N 3 3"]
    template_frame_t: Float[Tensor, "T N 3"]
    template_cb: Float[Tensor, "T N 3"]
    template_ca: Float[Tensor, "T N 3"]
    template_mask_cb: Float[Tensor, "T N"]
    template_mask_frame: Float[Tensor, "T N"]
    template_mask: Float[Tensor, "T N"]
    template_visibility: Int[Tensor, "T N"]  # tokens of one group see each other
    template_force: Bool[
        Tensor, " T"
    ]  # whether a steering potential holds the prediction to the template
    template_force_threshold: Float[Tensor, " T"]  # Å, infinite without force

    @property
    def num_tokens(self) -> int:
        """Tokens, padding included."""
        return self.token_mask.shape[0]

    @property
    def num_atoms(self) -> int:
        """Atoms, padding included."""
        return self.atom_mask.shape[0]

    @property
    def num_rows(self) -> int:
        """Rows of the alignment."""
        return self.msa.shape[0]

    def pad(self, multiple: int) -> Features:
        """The same with the number of tokens padded to a multiple; mask 0 there."""
        extra = -self.num_tokens % multiple
        return self._map(
            lambda name, x: _pad(x, _TOKEN_AXIS[name], extra) if name in _TOKEN_AXIS else x
        )

    def to(self, device: torch.device | str) -> Features:
        """The same on a device."""
        return self._map(lambda name, x: _stored(x).to(device).expand(x.shape))

    def _map(self, function: Callable[[str, Tensor], Tensor]) -> Features:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            self,
            **{n: function(n, v) for n, v in values.items() if isinstance(v, Tensor)},
        )


# Fields with an axis of tokens: the axis and the value of padding.
_TOKEN_AXIS = {
    **dict.fromkeys(
        [
            "res_type", "mol_type", "token_index", "residue_index", "asym_id", "entity_id", "sym_id",
            "cyclic_period", "modified", "method", "token_mask", "rep_atom", "center_atom", "frame_atoms",
            "profile", "deletion_mean",
        ],
        (0, 0),
    ),
    **dict.fromkeys(["has_deletion", "deletion_value", "paired", "msa_mask"], (1, 0)),
    "msa": (1, GAP),
    **dict.fromkeys(
        [
            "template_res_type", "template_frame_rot", "template_frame_t", "template_cb", "template_ca",
            "template_mask_cb", "template_mask_frame", "template_mask", "template_visibility",
        ],
        (1, 0),
    ),
}  # fmt: skip


def _stored(x: Tensor) -> Tensor:
    """What an expanded tensor holds in memory; `expand` gives the whole again."""
    return x[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in x.stride())]


def _pad(x: Tensor, axis: tuple[int, int], extra: int) -> Tensor:
    dim, value = axis
    part = _stored(x)
    shape = [*x.shape[:dim], x.shape[dim] + extra, *x.shape[dim + 1 :]]
    if part.shape[dim] == x.shape[dim]:  # else it is a constant, and the padding's value
        padding = part.new_full([*part.shape[:dim], extra, *part.shape[dim + 1 :]], value)
        part = torch.cat([part, padding], dim)
    return part.expand(shape)


def featurize(
    complex: Complex,
    *,
    alignment: AlignmentSettings | None = None,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    max_template_bytes: int = MAX_BYTES,
) -> Features:
    """Everything that the network reads about a complex, on the CPU, without padded tokens.

    Equal to what `boltz predict` 2.2.1 computes. The reference conformers are moved by
    `augmentation`, or by motions drawn from `seed`. Raises ValueError naming the complex and the
    value at fault: an unknown component or method, a constraint on an atom that does not exist, an
    alignment that does not fit its chain, an alignment or template that is larger than the limits
    or not the one that was planned.
    """
    if complex.method.lower() not in METHODS:
        known = ", ".join(method for method in METHODS if method)
        raise ValueError(
            f"complex {complex.name}: {complex.method!r} is no experimental method; known: {known}"
        )
    parts = tables(complex)
    covalent = covalent_bonds(complex, parts)
    conditions = contacts(complex, parts)
    rows = align(complex, parts, alignment or AlignmentSettings())
    return Features(
        layout=_layout(parts, rows),
        **_token_features(parts, METHODS[complex.method.lower()]),
        cyclic_period=torch.from_numpy(cyclic_period(complex, parts, covalent)),
        bonds=torch.from_numpy(token_bonds(parts, covalent)),
        contacts=torch.from_numpy(conditions.pairs),
        contact_threshold=torch.from_numpy(conditions.thresholds),
        contact_default=conditions.default,
        **alignment_features(parts, rows),
        **atom_features(
            parts,
            augmentation or Augmentation.draw(len(parts.residues.component), seed),
        ),
        **template_features(complex, parts, max_template_bytes),
    )


def _layout(parts: Tables, rows: Alignment) -> Layout:
    component = parts.residues.component
    residue = parts.tokens.residue
    return Layout(
        chain_names=parts.chains.name,
        chain_kinds=parts.chains.kind,
        chain_entities=parts.chains.entity,
        token_chain=parts.token_chain,
        token_residue=parts.token_number + 1,
        token_name=[component[i].code for i in residue.tolist()],
        atom_token=parts.atoms.token,
        atom_name=parts.atoms.name,
        atom_element=parts.atoms.element,
        chain_msa_depth=rows.chain_depth,
    )


def _token_features(parts: Tables, method: int) -> dict[str, Tensor]:
    chain = parts.token_chain
    tokens = parts.tokens
    features = {
        "res_type": tokens.type,
        "mol_type": parts.token_kind,
        "token_index": np.arange(len(chain)),
        "residue_index": parts.token_number,
        "asym_id": chain,
        "entity_id": parts.chains.entity[chain],
        "sym_id": parts.chains.copy[chain],
        "modified": tokens.modified.astype(np.int64),
        "method": np.full(len(chain), method),
        "token_mask": np.ones(len(chain), dtype=np.float32),
        "rep_atom": tokens.representative,
        "center_atom": tokens.center,
        "frame_atoms": tokens.frame,
    }
    return {name: torch.from_numpy(value) for name, value in features.items()}
