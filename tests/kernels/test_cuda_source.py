"""Kernels in CUDA C++: their compiler and what the host tells them."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest
import torch

from foldcp.kernels import cuda_source
from foldcp.kernels.cuda_source import compile_source, compiled, load_kernel
from foldcp.kernels.pair_passes import hopper

KERNELS = Path(cuda_source.__file__).parent
C_TYPES = {"int": "c_int", "float": "c_float", "long long": "c_long"}


def test_a_missing_compiler_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "0.1")
    monkeypatch.setattr(cuda_source, "find_spec", lambda name: None)
    with pytest.raises(OSError, match=r"libnvrtc\.so\.0"):
        cuda_source.compiler.__wrapped__()


def test_without_a_compiler_there_is_no_kernel_but_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compiled(*_: str) -> bytes:
        raise OSError("no libnvrtc")

    monkeypatch.setattr(cuda_source, "compiled", compiled)
    source = KERNELS / "pair_passes" / "hopper.cu"
    with pytest.warns(UserWarning, match="it is slower without NVRTC: no libnvrtc"):
        assert load_kernel("it is slower", source, "name", 128, 0) is None
    with pytest.raises(AssertionError, match=r"missing\.cu is not installed"):
        load_kernel("it is slower", tmp_path / "missing.cu", "name", 128, 0)


@pytest.mark.parametrize(
    "module", ["triangle_attention.hopper", "pair_passes.hopper", "conditioned.glu_linear"]
)
def test_host_and_kernel_agree_on_the_arguments(module: str) -> None:
    if module != "pair_passes.hopper":
        pytest.importorskip("triton")
    host = importlib.import_module(f"foldcp.kernels.{module}")
    source = (KERNELS / f"{module.replace('.', '/')}.cu").read_text()
    (body,) = re.findall(r"struct Arguments \{(.*?)\n\};", source, re.DOTALL)
    expected = []
    for line in re.findall(r"^ *([^/\n;]*);", body, re.MULTILINE):
        kind, names = re.fullmatch(r"(.*?[ *])(\w+(?:, \w+)*)", line).groups()
        type_name = "c_void_p" if "*" in kind else C_TYPES[kind.strip()]
        expected += [(name, type_name) for name in names.split(", ")]
    assert [(name, kind.__name__) for name, kind in host.Arguments._fields_] == expected


def test_sources_are_installed() -> None:
    project = tomllib.loads((KERNELS.parents[1] / "pyproject.toml").read_text())
    installed = project["tool"]["setuptools"]["package-data"]
    sources = list(KERNELS.rglob("*.cu*"))
    assert len(sources) > 3
    for source in sources:
        package = ".".join(source.parent.relative_to(KERNELS.parents[1]).parts)
        assert f"*{source.suffix}" in installed.get(package, ()), source


def test_what_a_pass_keeps_on_chip_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And every pass has a kernel for pairs in bf16 and in fp32, with options of its own."""
    monkeypatch.setattr(cuda_source, "compiled", lambda source, *given: " ".join(given).encode())
    hopper.kernels.cache_clear()
    options = set()
    for z_bytes in (2, 4):
        for of, kernel in hopper.kernels(z_bytes).items():
            made = kernel.result()
            assert made.threads <= 512
            assert made.shared_bytes <= 227 << 10
            assert f"-DPASS={of.value} -DZ_BYTES={z_bytes} ".encode() in made.cubin
            options.add(made.cubin)
    hopper.kernels.cache_clear()
    assert len(options) == 2 * len(hopper.Pass)


def test_a_kernel_is_compiled_once_for_each_of_its_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[str, ...]] = []

    def compile_(source: str, *options: str) -> bytes:
        calls.append(options)
        return f"{source} {options}".encode()

    monkeypatch.setattr(cuda_source, "compile_source", compile_)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for option in ("-DA", "-DA", "-DB"):
        assert compiled("kernel", option) == f"kernel ('{option}',)".encode()
    assert calls == [("-DA",), ("-DB",)]
    assert len(list((tmp_path / "cache" / "foldcp" / "kernels").iterdir())) == 2
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # where no folder can be made
    assert compiled("kernel", "-DA")
    assert len(calls) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_errors_of_the_compiler_are_told() -> None:
    with pytest.raises(RuntimeError, match='identifier "missing" is undefined'):
        compile_source("__global__ void f() { missing(); }")
