"""Checkpoints as safetensors: the same network to the last bit, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import subprocess
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foldcp.checkpoint.identity import checkpoint_identity
from foldcp.checkpoint.load import load, read_checkpoint
from foldcp.checkpoint.safetensors_file import read_safetensors, write_safetensors
from foldcp.config import BOLTZ2, read_architecture, to_hyper_parameters
from foldcp.features.featurize import featurize
from foldcp.pipeline.convert import convert
from foldcp.predict import Prediction, fold
from tests.checkpoint.test_load import (
    BIG,
    SMALL,
    contents,
    hyper_parameters,
    memory_after_loading,
    random_weights,
)
from tests.predict.test_predict import SETTINGS, complex_of_31_tokens
from tests.support.distributed import run

OPTIONS = {"hyper_parameters": hyper_parameters(SMALL)}


@pytest.fixture
def lightning(tmp_path: Path) -> Path:
    """A checkpoint with averaged weights, the object of a class that does not exist, and what
    training leaves.
    """
    averaged = {
        name: weight + 1 for name, weight in random_weights().items() if name.startswith("s_norm")
    }
    more = {"validators.0.seen": torch.zeros(1)}
    torch.save(
        contents(
            state_dict=random_weights() | more,
            ema={"ema_weights": averaged},
            callbacks=Path("a"),
        ),
        tmp_path / "small.ckpt",
    )
    return tmp_path / "small.ckpt"


def predict(path: Path) -> Prediction:
    return fold(load(path), featurize(complex_of_31_tokens(), seed=SETTINGS.seed), SETTINGS)


def test_convert_keeps_predictions_to_the_bit(lightning: Path) -> None:
    target = lightning.with_suffix(".safetensors")
    convert(str(lightning), target, overwrite=False)
    before = load(lightning)
    after = load(target)
    assert after.architecture == before.architecture == SMALL
    weights = after.state_dict()
    assert weights.keys() == before.state_dict().keys()
    for name, weight in before.state_dict().items():
        assert weights[name].numpy().tobytes() == weight.numpy().tobytes(), name
    expected = predict(lightning)
    got = predict(target)
    assert np.array_equal(got.coords, expected.coords)
    assert np.array_equal(got.plddt, expected.plddt)
    assert all(np.array_equal(x, y) for x, y in zip(got.pae, expected.pae, strict=True))
    for got_scores, expected_scores in zip(got.scores, expected.scores, strict=True):
        np.testing.assert_equal(asdict(got_scores), asdict(expected_scores))


def test_load_ignores_the_offset_of_weights(lightning: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.ckpt"
    converted = tmp_path / "small.safetensors"
    convert(str(lightning), converted, overwrite=False)
    with zipfile.ZipFile(lightning) as source, zipfile.ZipFile(packed, "w") as target:
        for item in source.namelist():
            target.writestr(item, source.read(item))
    before = load(lightning).state_dict()
    for path in (packed, converted):
        _, weights = read_checkpoint(path)
        assert any(weight.data_ptr() % 64 for weight in weights.values())
        for name, weight in load(path).state_dict().items():
            assert weight.data_ptr() % 64 == 0
            assert torch.equal(weight, before[name])


def test_load_ignores_the_name_of_the_file(lightning: Path, tmp_path: Path) -> None:
    target = lightning.with_suffix(".safetensors")
    other = tmp_path / "other.ckpt"
    convert(str(lightning), target, overwrite=False)
    target.rename(other)
    lightning.rename(target)
    assert load(other).architecture == load(target).architecture == SMALL


def test_convert_of_equal_checkpoints_gives_equal_files(lightning: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for file in files:
        summary = convert(str(lightning), file, overwrite=False)
        assert summary.endswith(checkpoint_identity(file)) and str(file) in summary
    assert len({checkpoint_identity(file) for file in files}) == 1
    assert (
        checkpoint_identity(files[0])
        == "sha256:" + hashlib.sha256(files[0].read_bytes()).hexdigest()
        != checkpoint_identity(lightning)
    )
    about, _ = read_safetensors(files[0])
    assert about == {
        "hyper_parameters": to_hyper_parameters(SMALL),
        "source": checkpoint_identity(lightning),
    }


def test_to_hyper_parameters_inverts_read_architecture() -> None:
    for architecture in (SMALL, BOLTZ2):
        stored = json.loads(json.dumps(to_hyper_parameters(architecture)))
        assert read_architecture(stored) == architecture


def refusal(source: str | Path, target: Path) -> str:
    """The reason why a conversion is refused; it leaves nothing behind."""
    before = sorted(target.parent.iterdir()) if target.parent.is_dir() else []
    with pytest.raises(ValueError) as error:
        convert(str(source), target, overwrite=False)
    assert (sorted(target.parent.iterdir()) if target.parent.is_dir() else []) == before
    return str(error.value)


def test_convert_replaces_a_file_only_with_overwrite(lightning: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    target.write_bytes(b"mine")
    assert refusal(lightning, target) == f"{target}: exists; --overwrite replaces it"
    assert target.read_bytes() == b"mine"
    convert(str(lightning), target, overwrite=True)
    convert(str(target), target, overwrite=True)  # onto itself
    assert load(target).architecture == SMALL
    (tmp_path / "folder.safetensors").mkdir()
    assert "is a folder" in refusal(lightning, tmp_path / "folder.safetensors")


def test_convert_refuses_what_it_cannot_convert(lightning: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    assert "ends in .safetensors" in refusal(lightning, tmp_path / "a.ckpt")
    assert "no such folder" in refusal(lightning, tmp_path / "none" / "a.safetensors")
    assert "random" in refusal("untrained:tiny", target)
    assert "safetensors already" in refusal("demo", target)
    assert "none.ckpt: no such checkpoint" in refusal(tmp_path / "none.ckpt", target)
    weights = random_weights()
    del weights["s_norm.bias"]
    torch.save(contents(state_dict=weights), lightning)
    assert f"{lightning}: 1 parameters do not fit" in refusal(lightning, target)
    torch.save(
        contents(state_dict=random_weights() | {"s_norm.bias": torch.zeros(32).double()}),
        lightning,
    )
    assert "s_norm.bias has type torch.float64, not torch.float32" in refusal(lightning, target)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from foldcp.pipeline.convert import convert
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    convert(sys.argv[1], Path(sys.argv[2]), True)
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_convert_on_a_full_disk_leaves_the_old_file(lightning: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    target.write_bytes(b"mine")
    command = [sys.executable, "-c", FULL_DISK, str(lightning), str(target)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.stdout.startswith(f"{target}: cannot be written: "), ended.stderr
    assert ended.stdout.count("\n") == 1
    assert target.read_bytes() == b"mine"
    assert {path.name for path in tmp_path.iterdir()} == {"a.safetensors", "small.ckpt"}


def message_of(path: Path) -> str:
    with pytest.raises(ValueError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


def encode(header: Any, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, shape: list[int], kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


HOSTILE = {
    "huge header": struct.pack("<Q", 2**63 - 1) + b"{}",
    "header beyond the file": struct.pack("<Q", 10**7) + b"{}" + bytes(100),
    "header that ends too early": struct.pack("<Q", 20) + b'{"a": {"dtype": "F32',
    "no JSON": encode(b"{" + bytes(30)),
    "no text": encode(b"{\xff\xfe" + bytes(30)),
    "deep": encode(b'{"a":' * 100_000),
    "overlap": encode({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)),
    "hole": encode({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12)),
    "beyond the file": encode({"a": entry(0, 400, [100])}, bytes(12)),
    "backwards": encode({"a": entry(8, 0, [2])}, bytes(8)),
    "negative": encode({"a": entry(-8, 0, [2])}, bytes(8)),
    "shape of another size": encode({"a": entry(0, 8, [3])}, bytes(8)),
    "shape beyond integers": encode({"a": entry(0, 8, [2**63, 2**63])}, bytes(8)),
    "unknown type": encode({"a": entry(0, 8, [2], "F33")}, bytes(8)),
    "more data": encode({"a": entry(0, 8, [2])}, bytes(80)),
    "no metadata": encode({"a": entry(0, 8, [2])}, bytes(8)),
    "metadata is no JSON": encode({"__metadata__": {"foldcp": "{"}}),
    "metadata is no object": encode({"__metadata__": {"foldcp": "[]"}}),
    "metadata is deep": encode({"__metadata__": {"foldcp": "[" * 100_000}}),
    "metadata is no text": encode({"__metadata__": {"foldcp": {}}}),
    "no options": encode({"__metadata__": {"foldcp": "{}"}}),
    "options are a list": encode({"__metadata__": {"foldcp": '{"hyper_parameters": []}'}}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_read_safetensors_of_a_hostile_header_is_one_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(HOSTILE[name])
    assert len(message_of(tmp_path / "a.safetensors")) < 1000


def test_load_names_weights_of_another_type_or_shape(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights = random_weights()
    weights["s_norm.weight"] = torch.zeros(7)
    write_safetensors(path, OPTIONS, weights)
    name = b'"s_norm.bias": {"dtype": '
    data = path.read_bytes()
    assert name + b'"F32"' in data
    path.write_bytes(data.replace(name + b'"F32"', name + b'"I32"'))
    message = message_of(path)
    assert "2 parameters" in message
    assert "s_norm.bias has type torch.int32, not torch.float32" in message
    assert "s_norm.weight has shape (7,), not (32,)" in message


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("", "token_s", "384"),
        ("", "token_s", -1),
        ("", "atom_z", 2.5),
        ("", "num_bins", True),
        ("", "use_templates", None),
        ("", "conditioning_cutoff_min", float("nan")),
        ("pairformer_args", "num_blocks", 10**9),
        ("", "pairformer_args", [1]),
        ("", "msa_args", "small"),
    ],
)
def test_load_names_implausible_options(
    tmp_path: Path, section: str, name: str, value: Any
) -> None:
    options = hyper_parameters(SMALL)
    (options[section] if section else options)[name] = value
    write_safetensors(tmp_path / "a.safetensors", {"hyper_parameters": options}, random_weights())
    torch.save(contents(hyper_parameters=options), tmp_path / "a.ckpt")
    for path in (tmp_path / "a.safetensors", tmp_path / "a.ckpt"):
        assert name in message_of(path)


def test_load_refuses_options_that_are_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    for name in ("token_s", "affinity_prediction", "use_no_atom_char", "msa_args"):
        torch.save(
            contents(hyper_parameters=hyper_parameters(SMALL) | {name: torch.ones(3)}),
            path,
        )
        message_of(path)


def test_read_safetensors_of_a_damaged_header_is_one_error(lightning: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    draw = random.Random(0)
    convert(str(lightning), path, overwrite=False)
    whole = path.read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[draw.randrange(8 + size)] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            load(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
    assert refused > 30
    path.write_bytes(whole[:-1])
    assert "not a readable safetensors file" in message_of(path)


@pytest.mark.skipif(
    sys.platform != "linux",
    reason="asks Linux for the share of each process in its pages",
)
def test_load_shares_the_file_between_ranks(tmp_path: Path) -> None:
    path = tmp_path / "big.safetensors"
    write_safetensors(path, {"hyper_parameters": hyper_parameters(BIG)}, random_weights(BIG))
    size = path.stat().st_size
    found = run(memory_after_loading, 3, str(path))
    assert all(loaded < size / 3 for loaded, _ in found), (
        "the weights were read when nobody needed them"
    )
    assert 0.7 * size < sum(read for _, read in found) < 1.3 * size, (
        "each rank holds weights of its own"
    )
