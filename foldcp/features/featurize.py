"""Featurization: from a complex, its MSAs and templates to the input of the network."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from foldcp.complex import Complex
from foldcp.features.atoms import Augmentation, atom_features
from foldcp.features.features import Features
from foldcp.features.layout import Layout
from foldcp.features.msa.chain_msas import MsaSettings
from foldcp.features.msa.features import ComplexMsa, msa_features, pair_msas
from foldcp.features.pairs import (
    closing_bonds,
    contact_conditions,
    covalent_bonds,
    cyclic_period,
    token_bonds,
)
from foldcp.features.templates.features import template_features
from foldcp.features.tokens import TokenizedComplex, tokenize
from foldcp.files import MAX_BYTES

# Experimental methods and their classes (Boltz-2); "" is X-ray diffraction.
METHODS = {
    "": 1,
    "md": 0,
    "x-ray diffraction": 1,
    "electron microscopy": 2,
    "solution nmr": 3,
    "solid-state nmr": 4,
    "neutron diffraction": 4,
    "electron crystallography": 4,
    "fiber diffraction": 4,
    "powder diffraction": 4,
    "infrared spectroscopy": 4,
    "fluorescence transfer": 4,
    "epr": 4,
    "theoretical model": 4,
    "solution scattering": 4,
    "other": 4,
    "afdb": 5,
    "boltz-1": 6,
}


def featurize(
    complex: Complex,
    *,
    msa: MsaSettings | None = None,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    max_template_bytes: int = MAX_BYTES,
) -> Features:
    """Everything that the network reads about a complex, on the CPU, without padded tokens.

    Equal to what `boltz predict` 2.2.1 computes.

    Args:
        msa: how many MSA rows are read and paired; Boltz's numbers if None.
        seed: of the random motions of the reference conformers.
        augmentation: these motions, instead of those drawn from `seed`.
        max_template_bytes: the most that a template file may hold once unpacked.

    Raises:
        ValueError: naming the complex and the value at fault: an unknown component or method, a
            constraint on an atom that does not exist, an MSA that does not fit its chain, a file
            that exceeds the limits or has changed since the complex was planned.
    """
    method = complex.method.lower()
    if method not in METHODS:
        known = ", ".join(name for name in METHODS if name)
        raise ValueError(
            f"complex {complex.name}: unknown experimental method {complex.method!r}; "
            f"expected one of {known}"
        )
    tokenized = tokenize(complex)
    covalent = covalent_bonds(complex, tokenized)
    conditions = contact_conditions(complex, tokenized)
    paired_msa = pair_msas(complex, tokenized, msa or MsaSettings())
    if augmentation is None:
        augmentation = Augmentation.draw(len(tokenized.residues.component), seed)
    return Features(
        layout=_layout(complex, tokenized, paired_msa, covalent),
        **_token_features(tokenized, METHODS[method]),
        cyclic_period=torch.from_numpy(cyclic_period(complex, tokenized, covalent)),
        bonds=torch.from_numpy(token_bonds(tokenized, covalent)),
        contacts=torch.from_numpy(conditions.pairs),
        contact_threshold=torch.from_numpy(conditions.thresholds),
        contact_default=conditions.default,
        **msa_features(tokenized, paired_msa),
        **atom_features(tokenized, augmentation),
        **template_features(complex, tokenized, max_template_bytes),
    )


def _layout(
    complex: Complex,
    tokenized: TokenizedComplex,
    msa: ComplexMsa,
    covalent: Int[np.ndarray, "B 3"],
) -> Layout:
    """The layout of a complex with the bonds of the input."""
    component = tokenized.residues.component
    residue = tokenized.tokens.residue
    return Layout(
        chain_names=tokenized.chains.name,
        chain_kinds=tokenized.chains.kind,
        chain_accessions=[chain.accession for chain in complex.chains],
        chain_smiles=[chain.smiles for chain in complex.chains],
        chain_entities=tokenized.chains.entity,
        token_chain=tokenized.token_chain,
        token_residue=tokenized.token_number + 1,
        token_name=[component[i].code for i in residue.tolist()],
        atom_token=tokenized.atoms.token,
        atom_name=tokenized.atoms.name,
        atom_element=tokenized.atoms.element,
        atom_charge=tokenized.atoms.charge,
        bonds=tokenized.bonds,
        covalent=np.concatenate([covalent[:, :2], closing_bonds(complex, tokenized)]),
        chain_msa_depth=msa.chain_depth,
        chain_coverage=msa.chain_coverage,
    )


def _token_features(tokenized: TokenizedComplex, method: int) -> dict[str, Tensor]:
    chain = tokenized.token_chain
    tokens = tokenized.tokens
    features = {
        "res_type": tokens.type,
        "mol_type": tokenized.token_kind,
        "token_index": np.arange(len(chain)),
        "residue_index": tokenized.token_number,
        "asym_id": chain,
        "entity_id": tokenized.chains.entity[chain],
        "sym_id": tokenized.chains.copy[chain],
        "modified": tokens.modified.astype(np.int64),
        "method": np.full(len(chain), method),
        "token_mask": np.ones(len(chain), dtype=np.float32),
        "rep_atom": tokens.representative,
        "frame_atoms": tokens.frame,
    }
    return {name: torch.from_numpy(value) for name, value in features.items()}
