"""The gradients of every parameter and input of each module are those of autograd through Boltz's
module.

Each rank differentiates the part of the loss that its own rows make. Then the gradient of an input
that is cut by rows is complete, and those of parameters and of inputs that every rank holds whole
add up over the ranks.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from foldcp.checkpoint.load import load
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.model.boltz2 import Boltz2
from tests.parity.support.cases import CASES, GRADIENTS, Case
from tests.parity.support.forms import Form, Share
from tests.parity.support.modules import Module, modules
from tests.parity.support.oracle import Oracle, features_of
from tests.parity.support.table import Measured, check, worst
from tests.support.distributed import run

ALLOWED = 1e-4
# A gradient that is zero but for rounding is measured by this share of the module's largest.
NEGLIGIBLE = 1e-3


def measure(cp: ContextParallel, oracle: Oracle, case: Case) -> list[Measured]:
    real = features_of(oracle.batch(case.input)[0])
    share = Share(cp, real.pad(cp.size), real.num_tokens)
    model = load(oracle.checkpoint(case.size), cp=cp)
    known = modules
    model.requires_grad_(True)
    record = oracle.record("gradients", case)
    found = []
    for name, call in record.items():
        inputs, parameters = gradients(known(model.architecture)[name], model, share, call)
        found.append((f"gradients of {name}: inputs", error(inputs, call["grad_in"]), ALLOWED))
        found.append(
            (
                f"gradients of {name}: parameters",
                error(parameters, call["grad_parameters"]),
                ALLOWED,
            )
        )
    return found


def gradients(
    module: Module, model: Boltz2, share: Share, call: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of inputs, in Boltz's form, and of parameters, whole."""
    wanted = call["grad_in"].keys()
    inputs = {
        name: form.to_shard(share, call["in"][name]).requires_grad_(name in wanted)
        for name, form in module.inputs.items()
    }
    model.zero_grad(set_to_none=True)
    outputs = module.run(model, share, *inputs.values())
    arguments = [
        own_part(form, share, form.to_shard(share, x))
        for form, x in zip(module.outputs.values(), call["given"], strict=True)
    ]
    torch.autograd.backward(outputs, arguments)
    of_inputs = {name: whole(module.inputs[name], share, inputs[name].grad) for name in wanted}
    of_parameters = {
        name: share.cp.all_reduce(p.grad if p.grad is not None else torch.zeros_like(p))
        for name, p in model.named_parameters()
    }
    return of_inputs, {
        name: g for name, g in of_parameters.items() if g.any() or name in call["grad_parameters"]
    }


def own_part(form: Form, share: Share, arguments: Tensor) -> Tensor:
    """Of an output that every rank holds whole, each rank differentiates another part."""
    if form.cut:
        return arguments
    places = torch.arange(arguments.numel()).reshape(arguments.shape)
    return arguments * (places % share.cp.size == share.cp.rank)


def whole(form: Form, share: Share, gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return form.to_boltz(share, gradient if form.cut else share.cp.all_reduce(gradient))


def error(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The worst relative error of a tensor."""
    assert ours.keys() == theirs.keys(), (
        f"gradients of other tensors: {ours.keys() ^ theirs.keys()}"
    )
    floor = NEGLIGIBLE * max(float(g.norm()) for g in theirs.values())
    return max(
        float((ours[name] - g).norm()) / max(float(g.norm()), floor) for name, g in theirs.items()
    )


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_boltz(name: str, size: int, oracle: Oracle) -> None:
    check(worst(run(measure, size, oracle, CASES[name]), name))
