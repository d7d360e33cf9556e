"""Loading of checkpoints: strict, safe, shared between ranks, with errors of one line."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from foldcp.checkpoint.identity import checkpoint_identity, is_untrained
from foldcp.checkpoint.load import load
from foldcp.config import OPTIONS, REQUIRED, TINY, Architecture, Precision
from foldcp.distributed.context_parallel import ContextParallel
from foldcp.model.boltz2 import Boltz2
from tests.support.distributed import run

# Three widths are the same in every Boltz-2 and stand in no file.
SMALL = replace(TINY, averaging_heads=8, averaging_head_width=32, outer_product_width=32)


def hyper_parameters(architecture: Architecture) -> dict[str, Any]:
    """As Boltz-2's class keeps them."""
    tree: dict[str, Any] = {}
    values = [
        (section, name, getattr(architecture, field))
        for field, (section, name, _) in OPTIONS.items()
    ]
    for section, name, value in values + [
        (section, name, ours) for section, name, _, ours in REQUIRED
    ]:
        node = tree
        for part in section.split(".") if section else ():
            node = node.setdefault(part, {})
        node[name] = value
    return tree


def random_weights(architecture: Architecture = SMALL, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {
            name: x.shape
            for name, x in Boltz2(architecture, ContextParallel()).state_dict().items()
        }
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    # One layer of the diffusion transformers stands there under two names.
    return {
        name: weights[name.replace("output_projection_linear", "output_projection.0")]
        for name in weights
    }


def contents(**changes: Any) -> dict[str, Any]:
    return {
        "epoch": 3,
        "state_dict": random_weights(),
        "hyper_parameters": hyper_parameters(SMALL),
        **changes,
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint file with some entries changed."""

    def write(**changes: Any) -> Path:
        torch.save(contents(**changes), tmp_path / "small.ckpt")
        return tmp_path / "small.ckpt"

    return write


def message_of(path: Path) -> str:
    with pytest.raises(ValueError) as error:
        load(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_load_takes_weights_and_sizes_from_the_file(write: Callable[..., Path]) -> None:
    model = load(write())
    assert model.architecture == SMALL
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    loaded = model.state_dict()
    for name, weight in random_weights().items():
        assert torch.equal(loaded[name], weight), name


def test_load_names_all_parameters_that_do_not_fit(
    write: Callable[..., Path],
) -> None:
    weights = random_weights()
    del weights["s_norm.bias"], weights["msa_module.s_proj.weight"]
    weights["extra.weight"] = torch.zeros(2)
    weights["z_norm.weight"] = torch.zeros(7)
    message = message_of(write(state_dict=weights))
    assert "4 parameters" in message
    for part in (
        "missing s_norm.bias",
        "missing msa_module.s_proj.weight",
        "unexpected extra.weight",
    ):
        assert part in message
    assert "z_norm.weight has shape (7,), not (16,)" in message


def test_load_ignores_what_training_leaves_behind(write: Callable[..., Path]) -> None:
    weights = random_weights() | {
        "validators.0.seen": torch.zeros(1),
        "train_confidence_loss_logger.n": torch.zeros(1),
    }
    load(write(state_dict=weights, optimizer_states=[{"step": 1}], callbacks={}))


def test_load_prefers_ema_weights(write: Callable[..., Path]) -> None:
    averaged = {
        name: weight + 1 for name, weight in random_weights().items() if name.startswith("s_norm")
    }
    loaded = load(write(ema={"cur_step": 7, "ema_weights": averaged})).state_dict()
    for name, weight in random_weights().items():
        assert torch.equal(loaded[name], averaged.get(name, weight)), name


def test_load_refuses_files_other_than_checkpoints(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    whole = write().read_bytes()
    assert "no such checkpoint" in message_of(tmp_path / "missing.ckpt")
    assert "no such checkpoint" in message_of(tmp_path)
    for name, data in {
        "text": b"MKTAYIAK\n",
        "pickle": pickle.dumps({"state_dict": {}}),
        "empty": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
        assert "not a checkpoint" in message_of(tmp_path / name)
    for share in (0.3, 0.9, 0.999):  # a download that broke off
        (tmp_path / "part.ckpt").write_bytes(whole[: int(len(whole) * share)])
        assert "not a checkpoint" in message_of(tmp_path / "part.ckpt")
    for name, data in {
        "empty.zip": {},
        "garbage.zip": {"small/data.pkl": "garbage"},
    }.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("small/version", "3")
            for member, text in data.items():
                archive.writestr(member, text)
        assert "not a checkpoint that torch.load can read" in message_of(tmp_path / name)


def test_load_refuses_other_objects_of_torch(tmp_path: Path) -> None:
    for number, thing in enumerate([random_weights(), torch.zeros(3), [1, 2], {"state_dict": {}}]):
        torch.save(thing, tmp_path / f"{number}.pt")
        assert "no state_dict and hyper_parameters" in message_of(tmp_path / f"{number}.pt")


def test_load_refuses_other_models_by_name(write: Callable[..., Path]) -> None:
    weights = random_weights()
    first = {name: x for name, x in weights.items() if not name.startswith("contact_conditioning")}
    assert "Boltz-1" in message_of(write(state_dict=first))
    assert "boltz2_aff" in message_of(
        write(state_dict=weights | {"affinity_module.x": torch.zeros(1)})
    )
    affinity = hyper_parameters(SMALL) | {"affinity_prediction": True}
    assert "boltz2_aff" in message_of(write(hyper_parameters=affinity))


def test_load_names_an_unsupported_option_and_its_value(
    write: Callable[..., Path],
) -> None:
    options = hyper_parameters(SMALL)
    options["score_model_args"]["transformer_post_ln"] = True
    assert "score_model_args.transformer_post_ln is True" in message_of(
        write(hyper_parameters=options)
    )


@contextmanager
def classes_of_omegaconf() -> Iterator[types.ModuleType]:
    """Stand-ins with the names and the state that OmegaConf's containers and values have in a
    pickle.
    """
    module = types.ModuleType("omegaconf")
    for name in ("DictConfig", "ListConfig", "AnyNode", "ContainerMetadata"):
        kind = type(name, (), {"__module__": "omegaconf", "__qualname__": name})
        setattr(module, name, kind)
    sys.modules["omegaconf"] = module
    try:
        yield module
    finally:
        del sys.modules["omegaconf"]


def as_omegaconf(value: Any, module: types.ModuleType) -> Any:
    """Containers hold `_content`, values `_val`; each knows its parent, so that the tree is full
    of cycles.
    """
    kind = {dict: module.DictConfig, list: module.ListConfig}.get(type(value), module.AnyNode)
    node = kind()
    node._metadata = module.ContainerMetadata()
    node._parent = None
    if isinstance(value, dict):
        node._content = {key: as_omegaconf(item, module) for key, item in value.items()}
    elif isinstance(value, list):
        node._content = [as_omegaconf(item, module) for item in value]
    else:
        node._val = value
    for child in (
        getattr(node, "_content", {}).values()
        if isinstance(value, dict)
        else getattr(node, "_content", ())
    ):
        child._parent = node
    return node


def test_load_reads_omegaconf_options_without_omegaconf(
    tmp_path: Path,
) -> None:
    options = hyper_parameters(SMALL)
    with classes_of_omegaconf() as module:
        wrapped = {
            name: as_omegaconf(value, module) if isinstance(value, dict) else value
            for name, value in options.items()
        }
        extra = {"training_args": as_omegaconf({"symmetry": [1, {"deep": None}]}, module)}
        torch.save(contents(hyper_parameters=wrapped | extra), tmp_path / "conf.ckpt")
        torch.save(
            contents(hyper_parameters=as_omegaconf(options, module)),
            tmp_path / "all.ckpt",
        )
    assert "omegaconf" not in sys.modules
    assert load(tmp_path / "conf.ckpt").architecture == SMALL
    assert load(tmp_path / "all.ckpt").architecture == SMALL


class Malicious:
    """Pickles to a call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def test_load_runs_no_code_of_the_file(tmp_path: Path, write: Callable[..., Path]) -> None:
    victim = tmp_path / "victim"
    calls = [
        (os.system, f"touch {victim}"),
        (exec, f"open({str(victim)!r}, 'w')"),
        (eval, f"open({str(victim)!r}, 'w')"),
        (Path.touch, victim),
        (open, str(victim), "w"),
        (torch.load, str(victim)),
    ]
    for call in calls:
        load(write(callbacks={"x": Malicious(*call)}))
        load(write(hyper_parameters=hyper_parameters(SMALL) | {"more": Malicious(*call)}))
    assert not victim.exists()
    for part in ("state_dict", "hyper_parameters"):
        assert "no state_dict and hyper_parameters" in message_of(
            write(**{part: Malicious(*calls[0])})
        )
    load(write(ema=Malicious(*calls[0])))
    assert not victim.exists()


def test_load_refuses_torchscript(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"program/{name}", "")
    assert "TorchScript" in message_of(tmp_path / "program.pt")


BIG = replace(SMALL, token_s=192, token_heads=4)  # 25 MB


def memory_after_loading(cp: ContextParallel, path: str) -> tuple[int, int]:
    """Bytes of the file in this process's memory after loading, and after reading every weight;
    pages that several processes share count in parts.
    """

    def mapped() -> int:
        return sum(m.pss for m in psutil.Process().memory_maps() if m.path == path)

    model = load(path, cp=cp)
    loaded = mapped()
    total = sum(float(p.sum()) for p in model.parameters())
    cp.all_reduce(torch.tensor(total))  # all have read before anybody measures
    read = mapped()
    cp.all_reduce(torch.zeros(1))  # and no rank leaves before all have
    return loaded, read


@pytest.mark.skipif(
    sys.platform != "linux",
    reason="asks Linux for the share of each process in its pages",
)
def test_load_shares_the_file_between_ranks(tmp_path: Path) -> None:
    path = tmp_path / "big.ckpt"
    torch.save(
        contents(state_dict=random_weights(BIG), hyper_parameters=hyper_parameters(BIG)),
        path,
    )
    size = path.stat().st_size
    found = run(memory_after_loading, 3, str(path))
    assert all(loaded < size / 3 for loaded, _ in found), (
        "the weights were read when nobody needed them"
    )
    assert 0.7 * size < sum(read for _, read in found) < 1.3 * size, (
        "each rank holds weights of its own"
    )


def test_random_weights_depend_on_their_names_only() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = load("untrained:tiny").state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = load("untrained:tiny", cp=ContextParallel()).state_dict()
    assert all(torch.equal(x, second[name]) for name, x in first.items())
    assert all(x.std() > 0 for name, x in first.items() if x.numel() > 1)
    assert len({x.double().sum().item() for x in first.values()}) > 0.9 * len(first)
    with pytest.raises(ValueError, match=r"untrained:huge.*untrained:tiny, untrained:boltz2"):
        load("untrained:huge")


def test_checkpoint_identity_is_the_content(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write()
    assert checkpoint_identity(path) == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(path.read_bytes())
    assert checkpoint_identity(copy) == checkpoint_identity(path)
    assert checkpoint_identity("untrained:tiny") == "untrained:tiny"
    assert is_untrained("untrained:tiny") and not is_untrained(path)
    with pytest.raises(ValueError, match="no such checkpoint"):
        checkpoint_identity(tmp_path / "missing.ckpt")
    with pytest.raises(ValueError, match="untrained:huge"):
        checkpoint_identity("untrained:huge")


@pytest.mark.parametrize("precision", ["fp32", "mixed", "bf16"])
def test_set_precision_casts_pairs_and_sampling(
    write: Callable[..., Path], precision: Precision
) -> None:
    model = load(write(), precision=precision)
    low = torch.float32 if precision == "fp32" else torch.bfloat16
    block = model.pairformer_module.layers[0]
    score = model.structure_module.score_model
    assert block.tri_mul_out.p_in.weight.dtype == low
    assert score.token_transformer.dtype == low
    assert score.atom_attention_encoder.atom_encoder.diffusion_transformer.dtype == low
    kept = [
        block.transition_s,
        block.attention.proj_q,
        model.input_embedder,
        model.confidence_module.confidence_heads,
    ]
    assert all(p.dtype == torch.float32 for part in kept for p in part.parameters())
    for stack in (model.pairformer_module, model.confidence_module.pairformer_stack):
        for layer in stack.layers:
            assert layer.attention.tf32 == layer.transition_s.tf32 == (precision != "fp32")
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert all(p.dtype == torch.float32 for norm in norms for p in norm.parameters())


def test_load_imports_no_compiler() -> None:
    """`torch._dynamo` takes seconds, in every rank of every worker group."""
    code = (
        "import sys; from foldcp.checkpoint.load import load; load('untrained:tiny', device='cpu');"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
