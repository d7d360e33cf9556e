"""Kernels in CUDA C++: their compiler and what the host tells them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from foldcp.kernels import cuda_source, triangle_attention
from foldcp.kernels.cuda_source import compile_source

SOURCE = Path(triangle_attention.__file__).with_name("hopper.cu")
C_TYPES = {"int": "c_int", "float": "c_float", "long long": "c_long"}


def test_a_missing_compiler_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "0.1")
    monkeypatch.setattr(cuda_source, "find_spec", lambda name: None)
    with pytest.raises(OSError, match=r"libnvrtc\.so\.0"):
        cuda_source.compiler.__wrapped__()


def test_host_and_kernel_agree_on_the_arguments() -> None:
    pytest.importorskip("triton")
    from foldcp.kernels.triangle_attention.hopper import Arguments

    (body,) = re.findall(r"struct Arguments \{(.*?)\};", SOURCE.read_text(), re.DOTALL)
    expected = []
    for line in re.findall(r"^ *([^/\n;]*);", body, re.MULTILINE):
        kind, names = re.fullmatch(r"(.*?[ *])(\w+(?:, \w+)*)", line).groups()
        type_name = "c_void_p" if "*" in kind else C_TYPES[kind.strip()]
        expected += [(name, type_name) for name in names.split(", ")]
    assert [(name, kind.__name__) for name, kind in Arguments._fields_] == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_errors_of_the_compiler_are_told() -> None:
    with pytest.raises(RuntimeError, match='identifier "missing" is undefined'):
        compile_source("__global__ void f() { missing(); }")
