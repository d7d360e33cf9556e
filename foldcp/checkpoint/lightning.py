"""Lightning checkpoints of Boltz, read without Lightning, Boltz or OmegaConf."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foldcp.checkpoint.unpickling import Global, OpaqueObject

MAX_DEPTH = 100  # of nested hyper parameters


def lightning_parts(
    path: Path, contents: Any, is_weight: Callable[[Any], bool]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Hyper parameters and weights, the averaged ones (EMA) where there are any.

    `contents` is what `read_archive` or `read_outline` has read. Raises ValueError naming the file
    when it has no such parts.
    """
    sections = contents if isinstance(contents, Mapping) else {}
    try:
        hyper_parameters, weights, average = (
            to_plain(sections.get(name)) for name in ("hyper_parameters", "state_dict", "ema")
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(hyper_parameters, Mapping) or not _are_weights(weights, is_weight):
        raise ValueError(
            f"{path}: not a Lightning checkpoint of Boltz-2 (no state_dict and hyper_parameters)"
        )
    if isinstance(average, Mapping) and _are_weights(average.get("ema_weights"), is_weight):
        weights = {**weights, **average["ema_weights"]}
    return hyper_parameters, weights


def _are_weights(x: Any, is_weight: Callable[[Any], bool]) -> bool:
    return isinstance(x, Mapping) and all(
        isinstance(name, str) and is_weight(value) for name, value in x.items()
    )


def to_plain(x: Any) -> Any:
    """Dicts, lists and values, also from OmegaConf's containers; other objects become None.

    Raises ValueError for nesting deeper than `MAX_DEPTH`, such as a list that contains itself.
    """
    return _to_plain(x, {}, MAX_DEPTH)


def _to_plain(x: Any, known: dict[int, Any], depth: int) -> Any:
    """`known` holds results by id: shared parts, which may double at each level, are done once."""
    if isinstance(x, OpaqueObject):
        state = x.state if isinstance(x.state, Mapping) else {}
        x = state["_content"] if "_content" in state else state.get("_val")
    if isinstance(x, OpaqueObject | Global):
        return None
    if not isinstance(x, Mapping | list | tuple):
        return x
    if depth == 0:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    if id(x) not in known:
        if isinstance(x, Mapping):
            known[id(x)] = {key: _to_plain(value, known, depth - 1) for key, value in x.items()}
        else:
            known[id(x)] = [_to_plain(item, known, depth - 1) for item in x]
    return known[id(x)]
