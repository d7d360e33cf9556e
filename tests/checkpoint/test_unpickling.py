"""Safe unpickling: data come back as pickled, and nothing that a file names is called."""

from __future__ import annotations

import collections
import copyreg
import enum
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch

from foldcp.checkpoint import torch_archive
from foldcp.checkpoint.lightning import to_plain
from foldcp.checkpoint.load import read_checkpoint
from foldcp.checkpoint.torch_archive import read_archive
from foldcp.checkpoint.unpickling import Global, OpaqueObject, unpickle
from tests.checkpoint.test_load import SMALL, contents, hyper_parameters

PROTOCOLS = [2, 3, 4, 5]
DATA = {
    "numbers": [
        0,
        1,
        255,
        65535,
        -1,
        2**31,
        -(2**31),
        2**70,
        -(2**3000),
        1.5,
        float("inf"),
        True,
        False,
        None,
    ],
    "text": ["", "a", "ß" * 300, "\ud800", b"", b"\x00\xff" * 200],
    "containers": [
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        tuple(range(9)),
        [],
        [[]],
        {},
        {"a": {2: [3]}},
        bytearray(b"ab"),
    ],
    "long": list(range(3000)),
    -7: {str(n): n for n in range(2000)},
}


# Before protocol 3 there were no bytes in pickles, before 5 no byte arrays: they are made by calls.
BYTES = {
    Global("_codecs", "encode"): lambda arguments: arguments[0].encode("latin1"),
    Global("__builtin__", "bytes"): lambda _: b"",
    Global("__builtin__", "bytearray"): lambda arguments: bytearray(*arguments),
    Global("builtins", "bytearray"): lambda arguments: bytearray(*arguments),
}


@pytest.mark.parametrize("protocol", range(6))
def test_unpickle_returns_data_as_pickled(protocol: int) -> None:
    assert unpickle(pickle.dumps(DATA, protocol), BYTES) == DATA


@pytest.mark.parametrize("protocol", range(6))
def test_unpickle_keeps_shared_objects_shared(protocol: int) -> None:
    shared: list[Any] = [1]
    shared.append(shared)
    first, second = unpickle(pickle.dumps([shared, shared], protocol), {})
    assert first is second and first[1] is first


def test_unpickle_makes_sets_lists_and_leaves_out_other_keys() -> None:
    mixed = {
        "a": {3},
        5: frozenset({4}),
        (1, 2): "pair",
        2**40: "large",
        0.5: "half",
        None: "none",
        b"b": "bytes",
    }
    for protocol in range(4, 6):
        assert unpickle(pickle.dumps(mixed, protocol), {}) == {"a": [3], 5: [4]}


class Colour(enum.Enum):
    RED = 1


class Settings(dict[str, int]):
    """A dict with attributes."""


class Items(list[int]):
    pass


class Stateful:
    def __getstate__(self) -> dict[str, Any]:
        return {"_val": 3}

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("a class of the file was used")


class Keyword:
    def __new__(cls, *, name: str) -> Keyword:
        return super().__new__(cls)

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, str]]:
        return (), {"name": "x"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unpickle_makes_objects_of_other_classes_placeholders(protocol: int) -> None:
    settings = Settings(a=1)
    settings.owner = "me"  # type: ignore[attr-defined]
    counts = collections.defaultdict(list, {"a": [1]})
    objects = [
        Colour.RED,
        settings,
        Items([1, 2]),
        Stateful(),
        Keyword(name="x"),
        PurePosixPath("a"),
        1j,
        counts,
        int,
    ]
    found = unpickle(pickle.dumps(objects, protocol), {})
    assert all(isinstance(x, OpaqueObject | Global) for x in found)
    assert [x.state for x in found[1:4]] == [{"owner": "me"}, None, {"_val": 3}]
    assert found[3].kind == Global(__name__, "Stateful")
    assert to_plain(found) == [None, None, None, 3, None, None, None, None, None]


def text(x: str | Path) -> bytes:
    data = str(x).encode()
    return b"X" + struct.pack("<I", len(data)) + data


def named(module: str, name: str, protocol: int) -> bytes:
    """The opcodes that push a class or a function."""
    if protocol >= 4:
        return text(module) + text(name) + b"\x93"
    return f"c{module}\n{name}\n".encode()


def called(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


@cache
def good_contents() -> dict[str, Any]:
    return contents()


Poison = Callable[..., Path]


@pytest.fixture
def poison(tmp_path: Path) -> Poison:
    """A checkpoint that loads, but whose pickle makes another object first and drops it."""

    def poison(attack: bytes, protocol: int = 4) -> Path:
        good = tmp_path / "good.ckpt"
        bad = tmp_path / "bad.ckpt"
        torch.save(good_contents(), good)
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
            for entry in source.infolist():
                data = source.read(entry)
                if entry.filename.endswith("/data.pkl"):
                    data = pickle.PROTO + bytes([protocol]) + attack + pickle.POP + data
                target.writestr(entry, data)
        return bad

    return poison


def load_or_refuse(path: Path) -> str:
    """The reason why a checkpoint is refused; empty when it is read, with its own weights."""
    try:
        _, weights = read_checkpoint(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")
        return str(error)
    assert all(
        torch.equal(weights[name], weight) for name, weight in good_contents()["state_dict"].items()
    )
    return ""


def attacks(victim: Path, protocol: int) -> dict[str, bytes]:
    """Pickles that would make the file `victim`."""
    code = text(f"open({str(victim)!r}, 'w')")
    shell = text(f"touch {victim}")

    def name(module: str, function: str) -> bytes:
        return named(module, function, protocol)

    def dotted(module: str, function: str) -> bytes:
        return called(called(name(module, function), text("eval")), code)

    system = name("os", "system")
    fetch = name("builtins", "getattr")
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    builtins = called(fetch, rebuild, text("__builtins__"))
    state = b"}" + text("__setstate__") + system + b"s"
    return {
        "call": called(system, shell),
        "dotted": dotted("torch._utils", "_rebuild_tensor.__builtins__.get"),
        "dotted item": dotted("torch._utils", "_rebuild_parameter.__builtins__.__getitem__"),
        "dotted method": dotted(
            "torch._utils", "_rebuild_tensor_v2.__call__.__self__.__builtins__.get"
        ),
        "dotted storage": dotted(
            "torch", "FloatStorage.__init_subclass__.__self__.__new__.__builtins__.get"
        ),
        "getattr chain": called(called(called(fetch, builtins, text("get")), text("eval")), code),
        "nested reduces": called(called(called(name("functools", "partial"), system), shell)),
        "attribute __setstate__": called(name("types", "SimpleNamespace"))
        + state
        + b"b"
        + shell
        + b"b",
        "__new__": name("subprocess", "Popen") + b"(" + shell + b"t\x81",
        "__new__ with keywords": name("subprocess", "Popen")
        + b"("
        + shell
        + b"t}"
        + text("shell")
        + b"\x88s\x92",
        "instance": b"(" + shell + b"ios\nsystem\n",
        "class on the stack": b"(" + system + shell + b"o",
        "argument of a known function": called(
            rebuild, called(system, shell), b"K\x00", b")", b")", b"\x89", b"}"
        ),
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("attack", attacks(Path(), 4))
def test_unpickle_runs_no_code(poison: Poison, tmp_path: Path, attack: str, protocol: int) -> None:
    victim = tmp_path / "victim"
    message = load_or_refuse(poison(attacks(victim, protocol)[attack], protocol))
    assert not victim.exists()
    assert not message


PYTHONS_UNPICKLER = """
import contextlib, pickle, sys
for path in sys.argv[1:]:
    with contextlib.suppress(Exception), open(path, "rb") as file:
        pickle.load(file)
"""


def test_attacks_work_against_pickle_load(tmp_path: Path) -> None:
    names = list(attacks(tmp_path, 4))
    for number, name in enumerate(names):
        attack = attacks(tmp_path / f"ran-{number}", 4)[name]
        (tmp_path / str(number)).write_bytes(pickle.PROTO + b"\x04" + attack + pickle.STOP)
    files = sorted(tmp_path.iterdir())
    subprocess.run(
        [sys.executable, "-c", PYTHONS_UNPICKLER, *files],
        check=True,
        capture_output=True,
        timeout=120,
    )
    ran = {name for number, name in enumerate(names) if (tmp_path / f"ran-{number}").exists()}
    assert ran >= set(names) - {
        "__new__",
        "__new__ with keywords",
    }  # which call no __init__


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch.nn.parameter", "Parameter"),
        ("torch.serialization", "_get_layout"),
        ("torch", "FloatStorage"),
        ("collections", "OrderedDict"),
    ],
)
def test_unpickle_changes_nothing_of_torch(
    poison: Poison, module: str, name: str, protocol: int
) -> None:
    target = getattr(__import__(module, fromlist=[name]), name)
    before = dict(vars(target))
    state = b"}" + text("poisoned") + b"\x88s"
    for build in (state, b"N" + state + b"\x86"):  # as __dict__, and as slots
        try:
            assert not load_or_refuse(
                poison(named(module, name, protocol) + build + b"b", protocol)
            )
            assert dict(vars(target)) == before
        finally:
            if hasattr(target, "poisoned"):
                del target.poisoned


@pytest.fixture
def extension() -> Iterator[int]:
    """A code of the registry that somebody in this process has used for a function."""
    copyreg.add_extension("os", "system", code := 240)
    copyreg._extension_cache[code] = os.system  # type: ignore[attr-defined]
    yield code
    copyreg._extension_cache.pop(code, None)  # type: ignore[attr-defined]
    copyreg.remove_extension("os", "system", code)


@pytest.mark.parametrize(("opcode", "form"), [("EXT1", "<B"), ("EXT2", "<H"), ("EXT4", "<i")])
def test_unpickle_refuses_the_extension_registry(
    poison: Poison, tmp_path: Path, extension: int, opcode: str, form: str
) -> None:
    victim = tmp_path / "victim"
    function = getattr(pickle, opcode) + struct.pack(form, extension)
    assert opcode in load_or_refuse(poison(called(function, text(f"touch {victim}"))))
    assert not victim.exists()


BROKEN = {
    "persistent name in a line": b"Pstorage\n",
    "persistent number": b"K\x01Q",
    "persistent tuple of another kind": text("module") + text("os") + b"\x86Q",
    "storage without a type": b"(" + text("storage") + b"N" + text("0") + text("cpu") + b"K\x01tQ",
    "reference to nothing": b"h\x07",
    "reference far away": b"j\xff\xff\xff\xff",
    "no mark": b"t",
    "no operands": b"R",
    "call of a number": b"K\x01)R",
    "arguments of no tuple": named("os", "system", 2) + b"K\x01R",
    "append to a number": b"K\x01K\x02a",
    "item of a number": b"K\x01K\x02K\x03s",
    "key without a value": b"}(K\x01u",
    "class named by a number": b"K\x01K\x02\x93",
    "buffer out of band": b"\x97",
    "unknown opcode": b"\xff",
    "text that ends too early": b"X\xff\xff\xff\x7fabc",
    "bytes that end too early": b"\x8e" + b"\xff" * 7 + b"\x7fabc",
    "two objects": b"NN",
    "a mark left": b"(N",
}


@pytest.mark.parametrize("name", BROKEN)
def test_unpickle_of_a_broken_pickle_is_one_error(poison: Poison, name: str) -> None:
    assert "not a checkpoint that torch.load can read" in load_or_refuse(poison(BROKEN[name]))


def test_unpickle_of_a_large_index_takes_no_memory() -> None:
    assert unpickle(b"\x80\x02Nr\xff\xff\xff\xff.", {}) is None


def test_unpickle_of_a_damaged_pickle_is_one_error() -> None:
    draw = random.Random(0)
    whole = pickle.dumps(
        [DATA["containers"], Stateful(), Colour.RED, {"a": "b" * 9, "c": 2**70}], 4
    )
    refused = 0
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            unpickle(bytes(damaged), {})
        except ValueError:
            refused += 1
    assert 300 < refused < 2900


def doubled(levels: int) -> list[Any]:
    """2 to the power of `levels` references to one list."""
    x: list[Any] = []
    for _ in range(levels):
        x = [x, x]
    return x


def nested(levels: int) -> list[Any]:
    x: list[Any] = []
    for _ in range(levels):
        x = [x]
    return x


def test_to_plain_reads_shared_options_once(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    options = hyper_parameters(SMALL)
    torch.save(good_contents() | {"hyper_parameters": {**options, "more": doubled(60)}}, path)
    assert not load_or_refuse(path)
    torch.save(
        good_contents() | {"hyper_parameters": {**options, "use_no_atom_char": doubled(60)}},
        path,
    )
    assert "use_no_atom_char" in load_or_refuse(path)
    torch.save(good_contents() | {"hyper_parameters": {**options, "atom_s": doubled(60)}}, path)
    assert "atom_s" in load_or_refuse(path)


def test_to_plain_refuses_circular_options(poison: Poison, tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    path = tmp_path / "a.ckpt"
    for more in (endless, nested(200)):
        torch.save(
            good_contents() | {"hyper_parameters": {**hyper_parameters(SMALL), "more": more}},
            path,
        )
        assert "nested more than 100 levels deep" in load_or_refuse(path)
    assert not load_or_refuse(poison(b"]" * 100_000 + b"a" * 99_999))
    assert not load_or_refuse(poison(b")" + b"\x85" * 100_000))


Entries = dict[str, bytes]


def tensor_pickle(
    size: str = "K\x04",
    *,
    offset: str = "K\x00",
    stride: str = "K\x01",
    numel: str = "K\x04",
    kind: str = "FloatStorage",
    count: int = 1,
) -> bytes:
    """A one-dimensional tensor of four numbers, or what opcodes say instead."""
    raw = {name: x.encode("latin1") for name, x in locals().copy().items() if isinstance(x, str)}
    storage = (
        b"("
        + text("storage")
        + named("torch", kind, 2)
        + text("0")
        + text("cpu")
        + raw["numel"]
        + b"tQ"
    )
    tensor = called(
        named("torch._utils", "_rebuild_tensor_v2", 2),
        storage,
        raw["offset"],
        b"(" + raw["size"] * count + b"t",
        b"(" + raw["stride"] * count + b"t",
        b"\x89",
        b"}",
    )
    return b"\x80\x02" + tensor + b"."


def write_archive(
    path: Path, pickled: bytes, entries: Entries | None = None, **options: Any
) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr("a/data.pkl", pickled)
        for name, data in {
            "a/data/0": struct.pack("<4f", 1, 2, 3, 4),
            **(entries or {}),
        }.items():
            file.writestr(name, data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ValueError) as error:
        read_archive(path)
    assert str(error.value).startswith(f"{path}: not a checkpoint")
    return str(error.value)


def test_read_archive_makes_the_tensor_of_the_pickle(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert read_archive(write_archive(path, tensor_pickle())).tolist() == [1, 2, 3, 4]
    assert read_archive(
        write_archive(path, tensor_pickle("K\x02", offset="K\x01", stride="K\x02"))
    ).tolist() == [2, 4]
    assert read_archive(write_archive(path, tensor_pickle("K\x03", stride="K\x00"))).tolist() == [
        1,
        1,
        1,
    ]
    assert read_archive(write_archive(path, tensor_pickle("K\x00", offset="K\x63"))).tolist() == []
    halves = read_archive(write_archive(path, tensor_pickle(kind="HalfStorage")))
    assert halves.dtype == torch.float16 and len(halves) == 4
    assert isinstance(
        read_archive(write_archive(path, tensor_pickle(kind="QInt8Storage"))),
        OpaqueObject,
    )


LARGE = "\x8a\x08" + "\xff" * 7 + "\x7f"
NEGATIVE = "J\xff\xff\xff\xff"
BEYOND = {
    "size": {"size": "K\x05"},
    "offset": {"offset": "K\x01"},
    "stride": {"stride": "K\x02"},
    "large size": {"size": LARGE},
    "large offset": {"offset": LARGE},
    "large stride": {"stride": LARGE},
    "larger than any machine": {"size": LARGE, "stride": "K\x00", "count": 2},
    "larger than a machine's integers": {"size": "\x8a\x09" + "\x00" * 8 + "\x01"},
    "negative offset": {"offset": NEGATIVE},
    "negative size": {"size": NEGATIVE},
    "negative stride": {"stride": NEGATIVE},
    "negative storage": {"numel": NEGATIVE},
    "storage": {"numel": "K\x05"},
    "storage of another type": {"kind": "DoubleStorage"},
    "fraction": {"size": "G?\xf8" + "\x00" * 6},
    "truth": {"offset": "\x88"},
    "text": {"size": "U\x01a"},
    "too many dimensions": {"size": "K\x01", "count": 100_000},
}


@pytest.mark.parametrize("name", BEYOND)
def test_read_archive_refuses_a_tensor_beyond_its_storage(tmp_path: Path, name: str) -> None:
    message = refusal(write_archive(tmp_path / "a", tensor_pickle(**BEYOND[name])))
    assert (
        "RuntimeError" not in message or name == "larger than any machine"
    )  # which only torch counts


def test_read_archive_reads_tensors_of_every_kind(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    kept = [
        base,
        base.T,
        base[1:, ::2],
        base.expand(2, 3, 4),
        base[0, 0],
        torch.zeros(0, 3),
        torch.tensor([True]),
    ]
    kept += [
        base.to(x)
        for x in (
            torch.float64,
            torch.float16,
            torch.bfloat16,
            torch.int64,
            torch.uint8,
            torch.int8,
        )
    ]
    kept += [torch.nn.Parameter(base)]
    others = [
        base.to_sparse(),
        base.to(torch.complex64),
        base.to(torch.uint16),
        torch.Generator,
        torch.float32,
    ]
    for protocol in PROTOCOLS:
        torch.save((kept, others, torch.Size([3])), tmp_path / "a", pickle_protocol=protocol)
        back, opaque, size = read_archive(tmp_path / "a")
        for x, y in zip(kept, back, strict=True):
            assert x.dtype == y.dtype and torch.equal(x, y) and not y.requires_grad
        assert all(isinstance(x, OpaqueObject | Global) for x in opaque)
        assert size == (3,)


def test_read_archive_bounds_the_size_of_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    bomb = bytes(20_000_000)
    write_archive(path, tensor_pickle(), {"a/more": bomb}, compression=zipfile.ZIP_DEFLATED)
    assert "entry data.pkl is compressed" in refusal(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", tensor_pickle())
        file.writestr("a/data/0", bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    assert "entry data/0 is compressed" in refusal(path)
    monkeypatch.setattr(torch_archive, "MAX_PICKLE_BYTES", 100)
    assert "more than 100" in refusal(write_archive(path, tensor_pickle() + bytes(1000)))


def test_read_archive_refuses_other_archives(tmp_path: Path) -> None:
    path = tmp_path / "a"
    good = tensor_pickle()
    assert "not little-endian" in refusal(write_archive(path, good, {"a/byteorder": b"big"}))
    assert read_archive(write_archive(path, good, {"a/byteorder": b"little"})).tolist() == [
        1,
        2,
        3,
        4,
    ]
    assert "TorchScript" in refusal(write_archive(path, good, {"a/constants.pkl": b""}))
    assert "2 folders" in refusal(write_archive(path, good, {"../data.pkl": b""}))
    with (
        zipfile.ZipFile(path, "w") as file,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        file.writestr("a/data.pkl", good)
        file.writestr("a/data.pkl", good)
    assert "the same name" in refusal(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", good)
    assert "no entry data/0" in refusal(path)


def test_read_archive_of_a_damaged_file_is_one_error(tmp_path: Path) -> None:
    draw = random.Random(0)
    path = tmp_path / "a"
    whole = write_archive(
        path, tensor_pickle(), {"a/byteorder": b"little", "a/version": b"3"}
    ).read_bytes()
    refused = 0
    for _ in range(1000):
        damaged = bytearray(whole)
        damaged[draw.randrange(4, len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            read_archive(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: not a checkpoint")
            refused += 1
    assert 300 < refused < 1000
