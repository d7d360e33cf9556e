"""A predicted structure and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from foldcp.features.layout import Layout
from foldcp.metrics.scores import Scores


@dataclass(frozen=True, eq=False)
class PredictedStructure:
    """One sample of a complex, to be written to a file. A atoms, T tokens."""

    layout: Layout
    coords: Float[np.ndarray, "A 3"]  # Å, written to 0.001
    plddt: Float[np.ndarray, " T"]  # 0 .. 1; the B-factor of an atom is 100 times its token's
    name: str
    title: str = ""  # the name if empty
    details: str = ""  # how the model was made
    scores: Scores | None = None
    weights: str = ""  # identity of the network's weights
    parameters: Mapping[str, int | str] = field(default_factory=dict)  # of the program
