"""The optimizer: AdamW, the schedule, the average, precision, what is frozen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.distributed.mesh import Mesh
from foldcp.training.loop.flat_weights import FlatWeights
from foldcp.training.loop.optimizer import Optimizer, decay_groups, ema_decay, learning_rate
from foldcp.training.loop.settings import ModelSettings, OptimizerSettings
from tests.support.distributed import run
from tests.training.examples import grad_of
from tests.training.loop.runs import ALONE, CPU, SETTINGS, draw_all, network, trainer

RATES = OptimizerSettings(max_rate=1e-2, warmup_steps=2, weight_decay=0.1, clip=1.0, ema=0.9)


def parameters() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (7, 5), "a.norm.weight": (5,), "b.weight": (70,), "x.s_init.weight": (3,)}
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator))
        for name, shape in shapes.items()
    }


def gradients(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return {name: torch.randn(p.shape, generator=generator) for name, p in parameters().items()}


def updated(cp: ContextParallel, num_steps: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and averages after some steps, to whose gradients each rank adds its part."""
    mesh = Mesh.of(cp, 1, CPU)
    flat = FlatWeights(decay_groups(parameters(), RATES.weight_decay), mesh)
    flat.attach()
    optimizer = Optimizer(flat, RATES, mesh)
    for step in range(num_steps):
        flat.clear_gradients()
        for name, gradient in gradients(step).items():
            grad_of(flat.parameters[name]).add_(gradient * (cp.rank + 1))
        optimizer.step(optimizer.reduce(cp.size * (cp.size + 1) // 2), step)
    return flat.by_name(flat.weights), flat.by_name(optimizer.whole(optimizer.average))


def test_updates_are_those_of_torch_with_a_plain_average() -> None:
    named = parameters()
    with_decay, without = decay_groups(named, RATES.weight_decay)
    assert set(without) == {"a.norm.weight", "x.s_init.weight"}
    groups = [
        {"params": list(with_decay.values()), "weight_decay": RATES.weight_decay},
        {"params": list(without.values()), "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, betas=(RATES.beta1, RATES.beta2), eps=RATES.epsilon)
    averages = {name: p.detach().clone() for name, p in named.items()}
    for step in range(6):
        for name, gradient in gradients(step).items():
            named[name].grad = gradient
        torch.nn.utils.clip_grad_norm_(named.values(), RATES.clip)
        for group in adam.param_groups:
            group["lr"] = learning_rate(RATES, step)
        adam.step()
        for name, p in named.items():
            averages[name] -= (averages[name] - p.detach()) * (1 - ema_decay(RATES, step + 1))
    for size in (1, 2, 3):
        for weights, got_averages in run(updated, size, 6):
            for name, p in named.items():
                torch.testing.assert_close(weights[name], p.detach(), rtol=1e-5, atol=1e-6)
                torch.testing.assert_close(got_averages[name], averages[name], rtol=1e-5, atol=1e-6)


def test_learning_rate_is_that_of_boltz() -> None:
    settings = OptimizerSettings(max_rate=1.8e-3)
    expected = {
        0: 0.0,
        500: 0.9e-3,
        1000: 1.8e-3,
        50_000: 1.8e-3,
        50_001: 1.8e-3 * 0.95,
        99_999: 1.8e-3 * 0.95,
        100_000: 1.8e-3 * 0.95**2,
    }
    found = {step: learning_rate(settings, step) for step in expected}
    assert found == pytest.approx(expected)
    assert learning_rate(replace(settings, warmup_steps=0), 0) == 1.8e-3


def test_average_follows_closely_at_first() -> None:
    settings = OptimizerSettings()
    assert ema_decay(settings, 1) == 2 / 11
    assert ema_decay(settings, 100_000) == 0.999


def test_updates_below_the_resolution_of_bf16_add_up() -> None:
    p = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    flat = FlatWeights([{"p": p}], ALONE)
    flat.attach()
    settings = OptimizerSettings(max_rate=1e-4, warmup_steps=0, weight_decay=0.0)
    optimizer = Optimizer(flat, settings, ALONE)
    for step in range(100):
        flat.clear_gradients()
        for _ in range(3):
            p.grad = torch.full_like(p, 0.1)
            flat.collect_gradients()
        torch.testing.assert_close(
            flat.gradients[:8], torch.full((8,), 3 * 0.1), rtol=1e-2, atol=0.0
        )
        before = p.detach().clone()
        optimizer.step(optimizer.reduce(1), step)
        if step == 0:
            assert torch.equal(p, before)  # one update is too small to be seen
    torch.testing.assert_close(flat.weights[:8], torch.full((8,), 0.99), rtol=1e-4, atol=0.0)
    assert torch.equal(p, torch.full_like(p, 0.99))


def test_gradients_in_bf16_reach_the_weights_in_fp32(tmp_path: Path) -> None:
    settings = replace(SETTINGS, precision="bf16", max_steps=2)
    made, _ = trainer(tmp_path, settings)
    model = made.network.model
    types = {p.dtype for p in model.parameters()}
    assert types == {torch.float32, torch.bfloat16}
    made.run(draw_all, float("inf"))
    for name, p in model.named_parameters():
        if name in made.network.flat.parameters:
            weight = made.network.flat.by_name(made.network.flat.weights)[name]
            assert torch.equal(p, weight.to(p.dtype)), name


def test_frozen_parameters_do_not_move(tmp_path: Path) -> None:
    chosen = ModelSettings(
        init="untrained:tiny",
        train=("confidence_module.*", "structure_module.*"),
        freeze=("*norm*",),
    )
    settings = replace(SETTINGS, model=chosen, max_steps=2)
    before = network(tmp_path / "before", settings).model.state_dict()
    made, _ = trainer(tmp_path, settings)
    made.run(draw_all, float("inf"))
    moved = {
        name
        for name, weight in made.network.model.state_dict().items()
        if not torch.equal(weight, before[name])
    }
    assert any(name.startswith("confidence_module.") for name in moved)
    assert any(name.startswith("structure_module.") for name in moved)
    assert all(name.startswith(("confidence_module.", "structure_module.")) for name in moved)
    assert not any("norm" in name.split(".")[-2] for name in moved)


def test_patterns_without_a_parameter_are_refused(tmp_path: Path) -> None:
    chosen = ModelSettings(init="untrained:tiny", freeze=("no.such.*",))
    with pytest.raises(ValueError, match=r"model.freeze: no parameter has a name like 'no.such"):
        network(tmp_path, replace(SETTINGS, model=chosen))
    chosen = ModelSettings(init="untrained:tiny", freeze=("*",))
    with pytest.raises(ValueError, match="leave nothing to train"):
        network(tmp_path, replace(SETTINGS, model=chosen))
