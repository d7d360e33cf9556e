"""foldcp: structures and interface scores of protein complexes with a Boltz-2-architecture model.

>>> import foldcp
>>> fos = foldcp.Chain("A", "protein", "LTDTLQAETDQLEDEKSALQTEIANLLKEKEKLEFILAAH")
>>> jun = foldcp.Chain("B", "protein", "RIARLEEKVKTLKAQNSELASTANMLREQVAQLKQKVMNH")
>>> model = foldcp.load_model("untrained:tiny")
>>> prediction = foldcp.fold(model, foldcp.Complex("ap1", (fos, jun)), steps=20)
>>> prediction.write_cif("ap1.cif")
>>> 0 <= prediction.scores[prediction.best_sample].iptm <= 1
True

`untrained:tiny` is a small network with random weights, for trying things out; `boltz2` stands for
the weights that `foldcp fetch boltz2` downloads. Names are imported when they are first used, so
`import foldcp` needs neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foldcp.api import Model, featurize, fold, fold_group, load_model
    from foldcp.complex import Chain, Complex
    from foldcp.metrics.scores import Scores
    from foldcp.pipeline.reporting.connection import connect
    from foldcp.pipeline.reporting.read_run import RunTables, read_run
    from foldcp.pipeline.score_database import score_database
    from foldcp.pipeline.storage.results.pae_file import PaeFile
    from foldcp.predict import Prediction

    __version__: str

__all__ = [
    "Chain",
    "Complex",
    "Model",
    "PaeFile",
    "Prediction",
    "RunTables",
    "Scores",
    "__version__",
    "connect",
    "featurize",
    "fold",
    "fold_group",
    "load_model",
    "read_run",
    "score_database",
]

# Public name -> the module that defines it.
_MODULES = {
    "Chain": "foldcp.complex",
    "Complex": "foldcp.complex",
    "Model": "foldcp.api",
    "PaeFile": "foldcp.pipeline.storage.results.pae_file",
    "Prediction": "foldcp.predict",
    "RunTables": "foldcp.pipeline.reporting.read_run",
    "Scores": "foldcp.metrics.scores",
    "connect": "foldcp.pipeline.reporting.connection",
    "featurize": "foldcp.api",
    "fold": "foldcp.api",
    "fold_group": "foldcp.api",
    "load_model": "foldcp.api",
    "read_run": "foldcp.pipeline.reporting.read_run",
    "score_database": "foldcp.pipeline.score_database",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        value = importlib.import_module("importlib.metadata").version("foldcp")
    elif name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module 'foldcp' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
