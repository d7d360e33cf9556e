"""AlphaFold 3's confidence functions on arrays: python alphafold3_confidences.py FILE IN OUT

Its compiled parts and JAX, which these functions do not use, are replaced by empty modules.
"""

from __future__ import annotations

import json
import runpy
import sys
from types import ModuleType

import numpy as np


class Polymers:
    """What `has_clash` reads of a structure of polymers alone."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.coords = arrays["coords"]
        self.res_id = arrays["residue"]
        self.chain_id = arrays["chain"]
        self.chains = np.unique(self.chain_id).tolist()

    def filter_to_entity_type(self, **_: bool) -> Polymers:
        return self


def empty_module(name: str, **attributes: object) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module
    return module


structure = empty_module("alphafold3.structure", Structure=Polymers)
constants = empty_module("alphafold3.constants", residue_names=None)
cpp = empty_module("alphafold3.cpp", mkdssp=None)
empty_module("alphafold3", structure=structure, constants=constants, cpp=cpp)
empty_module("absl", logging=None)
numbers = empty_module("jax.numpy", ndarray=np.ndarray)
empty_module("jax", numpy=numbers)

script, given, out = sys.argv[1:]
functions = runpy.run_path(script)
arrays = dict(np.load(given))
shared = {"num_tokens": len(arrays["asym_ids"]), "asym_ids": arrays["asym_ids"]}
pae_mean, pae_min, _ = functions["chain_pair_pae"](
    full_pae=arrays["pae"][None], mask=arrays["mask"], **shared
)
pde_mean, pde_min = functions["chain_pair_pde"](full_pde=arrays["pde"][None], **shared)
iptm = np.stack(
    [
        functions["chain_pairwise_predicted_tm_scores"](
            tm_adjusted_pae=tm, pair_mask=arrays["mask"], asym_id=arrays["asym_ids"]
        )
        for tm in arrays["tm_adjusted_pae"]
    ]
)
clash = functions["has_clash"](Polymers(arrays))
ranking = functions["get_ranking_score"](*arrays["ranking"], clash)
results = {
    "pae_mean": pae_mean[0],
    "pae_min": pae_min[0],
    "pde_mean": pde_mean[0],
    "pde_min": pde_min[0],
    "iptm": iptm,
}
with open(out, "w") as file:
    values = {name: array.tolist() for name, array in results.items()}
    json.dump(values | {"has_clash": bool(clash), "ranking_score": float(ranking)}, file)
