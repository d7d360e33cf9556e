"""Files of Boltz 2.2.1 in our types: its collated batch as Features, its random draws as ours."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foldcp.complex import Complex
from foldcp.datasets.reader import read
from foldcp.features.atoms import Augmentation
from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.features.layout import Layout
from foldcp.features.msa.features import MsaSettings
from foldcp.model.diffusion.noise import StepNoise
from tests.parity.support.cases import INPUTS, Case, TrainingCase


@dataclass(frozen=True)
class Oracle:
    """The folder that reference/main.py filled."""

    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / json.loads((self.folder / "index.json").read_text())[name]

    def batch(self, name: str) -> tuple[dict[str, Tensor], Augmentation]:
        """Boltz's features of an input, with its types, and how it moved the conformers."""
        saved = torch.load(self.path(f"features of {name}"), weights_only=True)
        draws = saved["draws"]
        rotation = draws.get("rotation", torch.zeros(0, 3, 3))
        translation = draws.get("translation", torch.zeros(0, 1, 3))
        motions = Augmentation(rotation.reshape(-1, 3, 3), translation.reshape(-1, 3))
        return {key: x.to(saved["types"][key]) for key, x in saved["feats"].items()}, motions

    def features(self, name: str) -> Features:
        """Ours of the same input, the conformers moved alike."""
        settings = MsaSettings(corrected=INPUTS[name].mended)
        return featurize(complex_of(name), msa=settings, augmentation=self.batch(name)[1])

    def record(self, kind: str, case: Case | TrainingCase) -> dict[str, Any]:
        """The prediction, gradients or precision of a case; numbers as floats."""
        return self.record_of(f"{kind} of {case.name}")

    def record_of(self, name: str) -> dict[str, Any]:
        """What a file of results holds; numbers as floats."""
        return _floats(torch.load(self.path(name), weights_only=True))

    def checkpoint(self, size: str) -> Path:
        return self.path(f"checkpoint {size}")


def complex_of(name: str) -> Complex:
    """An input as our reader reads it."""
    source = INPUTS[name]
    (found,) = read(source.path)
    assert isinstance(found, Complex)
    return replace(found, method=source.method)


def _floats(x: Any) -> Any:
    """Zeros and ones were saved as truth values."""
    if isinstance(x, dict):
        return {key: _floats(value) for key, value in x.items()}
    if isinstance(x, list):
        return [_floats(value) for value in x]
    return x.float() if isinstance(x, Tensor) and x.dtype == torch.bool else x


class ReplayedNoise:
    """The random numbers that Boltz drew, in its order."""

    NAMES = ("init_noise", "rotation", "translation", "eps")

    def __init__(self, sample: dict[str, Any], device: torch.device) -> None:
        self.drawn = {name: sample[name].to(device) for name in self.NAMES}

    def initial(self) -> Tensor:
        return self.drawn["init_noise"]

    def step(self, index: int) -> StepNoise:
        drawn = self.drawn
        return StepNoise(drawn["rotation"][index], drawn["translation"][index], drawn["eps"][index])


def _listed(dense: Tensor, keep: Tensor) -> Tensor:
    """[N, N] -> (i, j, value) where `keep`."""
    i, j = keep.nonzero(as_tuple=True)
    return torch.stack([i, j, dense[i, j].long()], -1)


def features_of(feats: dict[str, Tensor]) -> Features:
    """Boltz's batch, dense and one-hot, as ours. Names of chains and atoms are made up: the
    network reads none.
    """
    f = {name: x[0] for name, x in feats.items()}
    kind = f["contact_conditioning"].argmax(-1)
    default = int(kind.max() > 1)
    special = kind != default
    atom_mask = f["atom_pad_mask"].float()
    return Features(
        layout=layout_of(f),
        res_type=f["res_type"].argmax(-1),
        mol_type=f["mol_type"],
        token_index=f["token_index"],
        residue_index=f["residue_index"],
        asym_id=f["asym_id"],
        entity_id=f["entity_id"],
        sym_id=f["sym_id"],
        cyclic_period=f["cyclic_period"].float(),
        modified=f["modified"],
        method=f["method_feature"],
        token_mask=f["token_pad_mask"].float(),
        rep_atom=f["token_to_rep_atom"].argmax(-1),
        frame_atoms=f["frames_idx"].reshape(-1, 3),
        bonds=_listed(f["type_bonds"], f["token_bonds"][..., 0] > 0),
        contacts=_listed(kind, special),
        contact_threshold=f["contact_threshold"][special].float(),
        contact_default=default,
        msa=f["msa"],
        has_deletion=f["has_deletion"].bool(),
        deletion_value=f["deletion_value"].float(),
        paired=f["msa_paired"].bool(),
        msa_mask=f["msa_mask"].float(),
        profile=f["profile"].float(),
        deletion_mean=f["deletion_mean"].float(),
        ref_pos=f["ref_pos"].float(),
        ref_charge=f["ref_charge"].float(),
        ref_element=f["ref_element"].argmax(-1),
        ref_atom_name_chars=f["ref_atom_name_chars"].argmax(-1),
        ref_space_uid=f["ref_space_uid"],
        atom_mask=atom_mask,
        atom_token=f["atom_to_token"].argmax(-1),
        template_res_type=f["template_restype"].argmax(-1),
        template_frame_rot=f["template_frame_rot"].float(),
        template_frame_t=f["template_frame_t"].float(),
        template_cb=f["template_cb"].float(),
        template_ca=f["template_ca"].float(),
        template_mask_cb=f["template_mask_cb"].float(),
        template_mask_frame=f["template_mask_frame"].float(),
        template_mask=f["template_mask"].float(),
        template_visibility=f["visibility_ids"].long(),
        # Boltz leaves these out where it has no template but an empty one.
        template_force=f.get("template_force", torch.zeros(len(f["template_mask"]))).bool(),
        template_force_threshold=f.get(
            "template_force_threshold", torch.full((len(f["template_mask"]),), math.inf)
        ),
    )


KINDS = ("protein", "dna", "rna", "ligand")


def layout_of(f: dict[str, Tensor]) -> Layout:
    chains, token_chain = np.unique(f["asym_id"].numpy(), return_inverse=True)
    first = [int((f["asym_id"] == chain).nonzero()[0, 0]) for chain in chains]
    num_atoms = int(f["atom_pad_mask"].sum())
    return Layout(
        chain_names=[str(chain) for chain in chains],
        chain_kinds=[KINDS[int(f["mol_type"][token])] for token in first],
        chain_accessions=[""] * len(chains),
        chain_smiles=[""] * len(chains),
        chain_entities=f["entity_id"][first].numpy(),
        token_chain=token_chain,
        token_residue=f["residue_index"].numpy() + 1,
        token_name=["UNK"] * len(token_chain),
        atom_token=f["atom_to_token"].argmax(-1)[:num_atoms].numpy(),
        atom_name=["X"] * num_atoms,
        atom_element=f["ref_element"].argmax(-1)[:num_atoms].numpy(),
        atom_charge=np.zeros(num_atoms, dtype=np.int64),
        bonds=np.zeros((0, 3), dtype=np.int64),
        covalent=np.zeros((0, 2), dtype=np.int64),
        chain_msa_depth=np.ones(len(chains), dtype=np.int64),
        chain_coverage=[np.zeros(0, dtype=np.int32)] * len(chains),
    )
