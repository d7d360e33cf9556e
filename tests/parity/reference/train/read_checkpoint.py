"""Reads a checkpoint of a training run with Boltz's own module, optimizer, schedule and average:
python read_checkpoint.py FILE. Exit code 0 when each has what the file holds.
"""

from __future__ import annotations

import sys

import torch
from boltz.model.models.boltz2 import Boltz2


def check(path: str) -> None:
    content = torch.load(path, weights_only=True)
    model = Boltz2.load_from_checkpoint(path, strict=True, map_location="cpu")
    weights = model.state_dict()
    assert all(torch.equal(weights[name], x) for name, x in content["state_dict"].items())
    (optimizer,), (schedule,) = model.configure_optimizers()
    optimizer.load_state_dict(content["optimizer_states"][0])
    schedule["scheduler"].load_state_dict(content["lr_schedulers"][0])
    names = {id(p): name for name, p in model.named_parameters()}
    order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    assert order == content["foldcp"]["trained"], "Adam's state is that of other parameters"
    for number, name in enumerate(order):
        state = optimizer.state[dict(model.named_parameters())[name]]
        saved = content["optimizer_states"][0]["state"][number]
        assert torch.equal(state["exp_avg_sq"], saved["exp_avg_sq"]), name
    (average,) = model.configure_callbacks()
    average.on_load_checkpoint(None, model, content)
    assert average._ema_weights.keys() == weights.keys()
    print(f"{len(weights)} tensors, {len(order)} of the optimizer")


if __name__ == "__main__":
    check(sys.argv[1])
