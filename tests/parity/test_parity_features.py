"""Our features are Boltz's, tensor by tensor."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foldcp.features.features import Features
from tests.parity.support.cases import INPUTS
from tests.parity.support.oracle import Oracle
from tests.parity.support.table import Row, check, largest

FLOATS = 1e-6  # integers, masks and one-hot vectors are exact
COMPUTED = {
    "ref_pos",
    "deletion_value",
    "deletion_mean",
    "profile",
    "template_frame_rot",
    "template_frame_t",
    "template_cb",
    "template_ca",
    "contact_threshold",
    "template_force_threshold",
    "cyclic_period",
    "ref_charge",
}
POLYMERS_ONLY = "frames_idx"  # the frames of ligands are made anew from predicted coordinates


def dense_pairs(f: Features) -> dict[str, Tensor]:
    """Bonds and contacts as N x N arrays."""
    N = f.num_tokens
    bonded = torch.zeros(N, N, 1)
    types = torch.zeros(N, N, dtype=torch.long)
    i, j, bond = f.bonds.long().T
    bonded[i, j] = 1
    types[i, j] = bond
    kinds = torch.full((N, N), f.contact_default)
    thresholds = torch.zeros(N, N)
    i, j, kind = f.contacts.long().T
    kinds[i, j] = kind
    thresholds[i, j] = f.contact_threshold
    return {
        "token_bonds": bonded,
        "type_bonds": types,
        "contact_conditioning": F.one_hot(kinds, 5),
        "contact_threshold": thresholds,
    }


def as_boltz(f: Features) -> dict[str, Tensor]:
    """Our features in Boltz's form: one-hot vectors, N x N and A x N arrays; without the batch
    dimension.
    """
    N = f.num_tokens
    A = f.num_atoms
    real = f.atom_mask.long()
    given = {
        "token_index": f.token_index,
        "residue_index": f.residue_index,
        "asym_id": f.asym_id,
        "entity_id": f.entity_id,
        "sym_id": f.sym_id,
        "mol_type": f.mol_type,
        "res_type": F.one_hot(f.res_type, 33),
        "token_pad_mask": f.token_mask,
        "method_feature": f.method,
        "modified": f.modified,
        "cyclic_period": f.cyclic_period,
        "ref_pos": f.ref_pos,
        "ref_charge": f.ref_charge,
        "ref_atom_name_chars": F.one_hot(f.ref_atom_name_chars, 64) * real[:, None, None],
        "ref_element": F.one_hot(f.ref_element, 128) * real[:, None],
        "ref_space_uid": f.ref_space_uid,
        "atom_pad_mask": f.atom_mask,
        "atom_to_token": F.one_hot(f.atom_token, N) * real[:, None],
        "token_to_rep_atom": F.one_hot(f.rep_atom, A),
        "frames_idx": f.frame_atoms[None],
        "msa": f.msa,
        "msa_paired": f.paired,
        "deletion_value": f.deletion_value,
        "has_deletion": f.has_deletion,
        "deletion_mean": f.deletion_mean,
        "profile": f.profile,
        "msa_mask": f.msa_mask,
    }
    return given | dense_pairs(f) | templates(f)


def templates(f: Features) -> dict[str, Tensor]:
    """Boltz has one empty template where there are none."""
    if not len(f.template_mask):
        return {"template_mask": f.template_mask.new_zeros(1, f.num_tokens)}
    return {
        "template_restype": F.one_hot(f.template_res_type, 33),
        "template_frame_rot": f.template_frame_rot,
        "template_frame_t": f.template_frame_t,
        "template_cb": f.template_cb,
        "template_ca": f.template_ca,
        "template_mask_cb": f.template_mask_cb,
        "template_mask_frame": f.template_mask_frame,
        "template_mask": f.template_mask,
        "visibility_ids": f.template_visibility,
        "template_force": f.template_force,
        "template_force_threshold": f.template_force_threshold,
    }


def difference(name: str, ours: Tensor, theirs: Tensor) -> float:
    """The largest; of what is computed, in units of max(1, |value|), since a coordinate has 7
    digits.
    """
    theirs = theirs.double()
    return (
        largest(ours / theirs.abs().clamp(min=1), theirs / theirs.abs().clamp(min=1))
        if name in COMPUTED
        else (largest(ours, theirs))
    )


@pytest.mark.parametrize("name", INPUTS)
def test_features_are_those_of_boltz(name: str, oracle: Oracle) -> None:
    if not INPUTS[name].path.exists():
        pytest.skip(f"{INPUTS[name].path} is not here")
    ours = oracle.features(name)
    theirs = oracle.batch(name)[0]
    found = {}
    for key, x in as_boltz(ours).items():
        polymers = (slice(None), ours.mol_type != 3) if key == POLYMERS_ONLY else ...
        found[key] = difference(key, x[polymers], theirs[key][0][polymers])
    assert not {key: d for key, d in found.items() if d > 0 and key not in COMPUTED}
    worst = max(found, key=found.__getitem__)
    check([Row(f"features, worst of all tensors: {worst}", name, 1, found[worst], FLOATS)])
