"""foldcp's features as the dictionary that Boltz's network takes, for one complex without ligands,
templates, bonds and constraints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from foldcp.features.features import Features

NUM_RESIDUE_TYPES = 33
NUM_ELEMENTS = 128
NUM_CHARACTERS = 64
NUM_CONTACT_KINDS = 5


def boltz_batch(features: Features, device: torch.device) -> dict[str, Tensor]:
    """A batch of this complex, as Boltz 2.2.1's collated features."""
    batch = {
        **_tokens(features),
        **_pairs(features),
        **_alignment(features),
        **_atoms(features),
        **_no_templates(features),
    }
    return {name: x[None].to(device) for name, x in batch.items()}


def _tokens(f: Features) -> dict[str, Tensor]:
    zeros = torch.zeros_like(f.token_mask)
    return {
        "token_index": f.token_index.long(),
        "residue_index": f.residue_index.long(),
        "asym_id": f.asym_id.long(),
        "entity_id": f.entity_id.long(),
        "sym_id": f.sym_id.long(),
        "mol_type": f.mol_type.long(),
        "res_type": F.one_hot(f.res_type.long(), NUM_RESIDUE_TYPES),
        "modified": f.modified.long(),
        "method_feature": f.method.long(),
        "cyclic_period": f.cyclic_period,
        "token_pad_mask": f.token_mask,
        "token_resolved_mask": f.token_mask,
        "token_disto_mask": f.token_mask,
        "affinity_token_mask": zeros,
    }


def _pairs(f: Features) -> dict[str, Tensor]:
    N = f.num_tokens
    kinds = torch.full((N, N), f.contact_default)
    return {
        "token_bonds": torch.zeros(N, N, 1),
        "type_bonds": torch.zeros(N, N, dtype=torch.long),
        "contact_conditioning": F.one_hot(kinds, NUM_CONTACT_KINDS),
        "contact_threshold": torch.zeros(N, N),
    }


def _alignment(f: Features) -> dict[str, Tensor]:
    return {
        "msa": f.msa.long(),
        "msa_paired": f.paired.float(),
        "msa_mask": f.msa_mask.long(),
        "has_deletion": f.has_deletion,
        "deletion_value": f.deletion_value.float(),
        "deletion_mean": f.deletion_mean.float(),
        "profile": f.profile.float(),
    }


def _atoms(f: Features) -> dict[str, Tensor]:
    A = f.num_atoms
    of_token = F.one_hot(f.atom_token.long(), f.num_tokens)
    return {
        "ref_pos": f.ref_pos,
        "ref_charge": f.ref_charge,
        "ref_element": F.one_hot(f.ref_element.long(), NUM_ELEMENTS),
        "ref_atom_name_chars": F.one_hot(f.ref_atom_name_chars.long(), NUM_CHARACTERS),
        "ref_space_uid": f.ref_space_uid.long(),
        "atom_pad_mask": f.atom_mask,
        "atom_resolved_mask": f.atom_mask > 0,
        "atom_to_token": of_token * (f.atom_mask > 0)[:, None],
        "token_to_rep_atom": F.one_hot(f.rep_atom.long(), A),
        "frames_idx": f.frame_atoms.long()[None],
        "frame_resolved_mask": torch.ones(1, f.num_tokens, dtype=torch.bool),
        "coords": torch.zeros(1, A, 3),
    }


def _no_templates(f: Features) -> dict[str, Tensor]:
    N = f.num_tokens
    no_type = torch.zeros(1, N, dtype=torch.long)
    return {
        "template_restype": F.one_hot(no_type, NUM_RESIDUE_TYPES),
        "template_frame_rot": torch.zeros(1, N, 3, 3),
        "template_frame_t": torch.zeros(1, N, 3),
        "template_cb": torch.zeros(1, N, 3),
        "template_ca": torch.zeros(1, N, 3),
        "template_mask_cb": torch.zeros(1, N),
        "template_mask_frame": torch.zeros(1, N),
        "template_mask": torch.zeros(1, N),
        "query_to_template": torch.zeros(1, N, dtype=torch.long),
        "visibility_ids": torch.zeros(1, N),
    }
