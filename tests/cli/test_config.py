"""Settings: what is set arrives, what is unknown or wrong is named."""

from __future__ import annotations

import json
import os
from dataclasses import FrozenInstanceError
from math import inf
from pathlib import Path

import pytest

from foldcp.pipeline.config import RunConfig, keys, load

PRESETS = sorted((Path(__file__).parents[2] / "configs" / "run").glob("*.yaml"))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_config_defaults_are_those_of_boltz() -> None:
    config = load()
    assert (config.model.recycling, config.model.steps, config.model.samples) == (
        3,
        200,
        1,
    )
    assert config.msa.max_rows == 8192
    assert not config.msa.corrected
    assert config == RunConfig()


def test_load_applies_the_file_then_overrides(tmp_path: Path) -> None:
    file = write(tmp_path / "run.yaml", "model:\n  samples: 5\n  seed: 7\nwrite: [pde, boltz]\n")
    config = load(
        file,
        [
            "model.samples=2",
            "msa.corrected=true",
            "run.deadline_factor=3",
            "model.precision=bf16",
        ],
    )
    assert (config.model.samples, config.model.seed, config.model.precision) == (
        2,
        7,
        "bf16",
    )
    assert config.msa.corrected is True
    assert config.run.deadline_factor == 3.0
    assert config.write.files == ("pde", "boltz")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("boltz", ("boltz",)),
        ("boltz,pde", ("boltz", "pde")),
        ("[pde]", ("pde",)),
        ("[]", ()),
        ("pde,pde", ("pde",)),
    ],
)
def test_load_of_write_takes_one_or_many(text: str, expected: tuple[str, ...]) -> None:
    assert load(overrides=[f"write={text}"]).write.files == expected
    assert load(overrides=[f"write.files={text}"]).write.files == expected


def test_load_of_write_takes_a_list_or_a_section(tmp_path: Path) -> None:
    section = (
        "write:\n  files: [pde]\n  pae: best:3\n  structures: bcif\n  structure_samples: best\n"
    )
    found = load(write(tmp_path / "a.yaml", section)).write
    assert (found.files, found.structures, found.structure_samples) == (("pde",), "bcif", "best")
    assert found.num_pae_pairs == 3
    found = load(write(tmp_path / "b.yaml", "write: [pde]\n"), ["write.structures=none"]).write
    assert (found.files, found.structures, found.structure_samples) == (("pde",), "none", "all")
    assert found.num_pae_pairs == 0
    assert load(overrides=["write.pae=all"]).write.num_pae_pairs == inf


def test_dotted_keys_may_be_nested_or_not(tmp_path: Path) -> None:
    assert load(write(tmp_path / "a.yaml", "model.steps: 20\n")) == load(
        overrides=["model.steps=20"]
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "model.recyling=3",
            ["--set", "model.recyling", "did you mean model.recycling?"],
        ),
        ("samples=3", ["samples", "did you mean model.samples?"]),
        ("model=3", ["model", "unknown setting"]),
        ("model.steps.x=3", ["model.steps.x", "unknown setting"]),
        ("zzzzzz=3", ["zzzzzz", "known: model.recycling"]),
        ("model.steps=many", ["model.steps", "'many'", "an integer"]),
        ("model.steps=2.5", ["model.steps", "2.5", "an integer"]),
        ("model.steps=true", ["model.steps", "True", "an integer"]),
        ("model.steps=0", ["model.steps", "0", "minimum is 1"]),
        ("msa.corrected=1", ["msa.corrected", "1", "true or false"]),
        ("model.precision=fp8", ["model.precision", "'fp8'", "fp32, mixed, bf16, bf16-int8"]),
        ("write=boltz,zip", ["write", "'zip'", "boltz, pde"]),
        ("write.pae=best", ["write.pae", "'best'", "none, best:N, all"]),
        ("write.pae=best:0", ["write.pae", "'best:0'"]),
        ("write=3", ["write", "3", "list"]),
        ("write.structures=pdb", ["write.structures", "'pdb'", "cif.gz, cif, bcif, none"]),
        ("write.structure_samples=2", ["write.structure_samples", "2", "all, best"]),
        ("model.steps", ["model.steps", "KEY=VALUE"]),
        ("model.steps=", ["model.steps", "None"]),
        ("model.steps=[1", ["model.steps", "'[1'"]),
    ],
)
def test_load_names_key_and_value_of_a_mistake(override: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        load(overrides=[override])
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("model: {stepz: 3}", "model.steps?"),
        ("- a\n- b\n", "expected KEY"),
        ("a: [1\nb: 2", "line 2"),
        ("1: 2", "expected KEY"),
    ],
)
def test_load_names_the_file_of_a_mistake(tmp_path: Path, text: str, word: str) -> None:
    file = write(tmp_path / "bad.yaml", text)
    with pytest.raises(ValueError, match=r"bad\.yaml") as error:
        load(file)
    assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_load_refuses_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml: No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"binary\.yaml"):
        load(tmp_path / "binary.yaml")
    assert load(write(tmp_path / "empty.yaml", "# nothing\n")) == RunConfig()


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load().model.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_load(preset: Path) -> None:
    assert load(preset) != RunConfig()


def test_every_key_can_be_set() -> None:
    assert len(list(keys())) == len(set(keys())) >= 15
    for key in keys():
        value: object = RunConfig()
        for part in key.split("."):
            value = getattr(value, part)
        assert load(overrides=[f"{key}={json.dumps(value)}"]) == RunConfig()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("model: " + "[" * 5_000, "nested more than"),
        ("model: {seed: 1}\nmodel: {steps: 5}", "the key 'model' occurs twice (line 2"),
        ("model: {seed: !!int ''}", "IndexError: string index out of range"),
        (f"run: {{deadline_factor: 0x{'f' * 400}}}", "an integer of more than 64 bits"),
        (f"write: [0x{'f' * 5_000}]", "an integer of more than 64 bits"),
        (f"0x{'f' * 5_000}", "an integer of more than 64 bits"),
        ("model: {seed: 1" + ":1" * 100_000 + "}", "a value of more than 10,000 characters"),
        ("model: {seed: 2026-13-45}", "month must be in 1..12"),
        ("model: {seed: !!timestamp x}", "'NoneType' object"),
        (
            "a0: &a0 [x]\n"
            + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 99)}]\n" for i in range(1, 5)),
            "values",
        ),
    ],
)
def test_load_refuses_a_file_that_cannot_be_a_config_in_one_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = write(tmp_path / "bad.yaml", text)
    with pytest.raises(ValueError) as caught:
        load(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert problem in message
    assert "\n" not in message


@pytest.mark.timeout(60)
def test_load_takes_regular_files_of_bounded_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ValueError, match=r"pipe\.yaml: not a regular file"):
        load(tmp_path / "pipe.yaml")
    with pytest.raises(ValueError, match=r"zero: not a regular file"):
        load(Path("/dev/zero"))
    with pytest.raises(ValueError, match=r"large\.yaml: holds more than 1,000,000 bytes"):
        load(write(tmp_path / "large.yaml", "#" * 1_000_001))


def test_load_takes_an_override_that_is_not_yaml_as_text() -> None:
    for text in ("[" * 5_000, "2026-13-45", "!!int ''", "a: b: c"):
        with pytest.raises(ValueError, match=r"--set: model\.seed: "):
            load(overrides=[f"model.seed={text}"])


@pytest.mark.parametrize(
    ("value", "expected"), [("8,15", (8, 15)), ("12", (12,)), ("[10, 15]", (10, 15))]
)
def test_load_reads_cutoffs_of_pae(value: str, expected: tuple[int, ...]) -> None:
    assert load(None, [f"scores.pae_cutoffs={value}"]).scores.pae_cutoffs == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("9", "one of 8"), ("10,9", "one of 8"), ("12.0", ""), ("true", "")]
)
def test_load_refuses_other_cutoffs_of_pae(value: str, expected: str) -> None:
    with pytest.raises(ValueError, match=rf"^--set: scores\.pae_cutoffs: expected {expected}"):
        load(None, [f"scores.pae_cutoffs={value}"])


def test_unknown_setting_with_a_line_end_is_told_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text('"run.dead\\nline": 3\n')
    with pytest.raises(ValueError, match=r"run.dead line: unknown setting") as error:
        load(file)
    assert "\n" not in str(error.value)
