"""Recording of Boltz: random draws, calls of modules, and tensors in as few bytes as hold them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from boltz.model.modules import utils
from torch import Tensor, nn


@contextmanager
def recorded_draws() -> Iterator[dict[str, list[Tensor]]]:
    """The values that torch and Boltz's random_rotations return, in the order of the calls."""
    log: dict[str, list[Tensor]] = {}
    with ExitStack() as stack:
        for owner, name in (
            (torch, "randn"),
            (torch, "randn_like"),
            (torch, "randperm"),
            (utils, "random_rotations"),
        ):
            stack.enter_context(
                patch.object(owner, name, _spy(getattr(owner, name), log.setdefault(name, [])))
            )
        yield log


def _spy(function: Any, log: list[Tensor]) -> Any:
    def call(*args: Any, **kwargs: Any) -> Tensor:
        out = function(*args, **kwargs)
        log.append(out.detach().clone())
        return out

    return call


Call = dict[str, Any]  # arguments by name, with the tensors that are in a dictionary


def arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    return dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)


# Numbers that a module takes from a dictionary. Of the features, those that are not one-hot or
# masks.
FROM_DICTIONARIES = {
    "input_embedder": ("feats", ("ref_pos", "profile", "deletion_mean")),
    "structure_module.score_model": (
        "diffusion_conditioning",
        ("q", "c", "atom_enc_bias", "atom_dec_bias", "token_trans_bias"),
    ),
}


def tensors(name: str, call: Call) -> dict[str, Tensor]:
    """The tensors among the arguments of the module called `name`."""
    argument, keys = FROM_DICTIONARIES.get(name, ("", ()))
    found = {key: x for key, x in call.items() if isinstance(x, Tensor)}
    return found | {key: call[argument][key] for key in keys}


def outputs(out: Any) -> list[Tensor]:
    return [x for x in (out if isinstance(out, tuple) else (out,)) if isinstance(x, Tensor)]


@contextmanager
def recorded_calls(
    model: nn.Module, names: set[str], keep: Callable[[str, nn.Module, Call, Any], Any]
) -> Iterator[dict[str, Any]]:
    """{module: keep(name, module, arguments, result) of its first call}."""
    log: dict[str, Any] = {}

    def hook(name: str) -> Any:
        def listen(module: nn.Module, args: tuple[Any, ...], kwargs: Call, out: Any) -> None:
            if name not in log:
                log[name] = keep(name, module, arguments(module, args, kwargs), out)

        return listen

    found = [(name, module) for name, module in model.named_modules() if name in names]
    handles = [module.register_forward_hook(hook(name), with_kwargs=True) for name, module in found]
    yield log
    for handle in handles:
        handle.remove()


def in_and_out(name: str, module: nn.Module, call: Call, out: Any) -> dict[str, Any]:
    """Copies of what a module was given and gave."""
    copy = {key: x.detach().clone() for key, x in tensors(name, call).items()}
    return {"in": copy, "out": [x.detach().clone() for x in outputs(out)]}


def compact(x: Any) -> Any:
    """A copy with integers, zeros and ones in the smallest type that has them."""
    if isinstance(x, dict):
        return {key: compact(value) for key, value in x.items()}
    if isinstance(x, list):
        return [compact(value) for value in x]
    if not isinstance(x, Tensor):
        return x
    narrow = [torch.bool, torch.int8, torch.int16, torch.int32]
    if x.is_floating_point():
        narrow = narrow[:1] if x.dim() > 0 else []
    elif x.dtype != torch.int64:
        narrow = []
    return next(
        (small for small in map(x.to, narrow) if torch.equal(small.to(x.dtype), x)),
        x.clone(),
    )


def save(tree: dict[str, Any], path: Path) -> None:
    """All or nothing: an interrupted run leaves no half file behind."""
    torch.save(compact(tree), path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)
