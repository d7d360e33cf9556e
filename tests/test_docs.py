"""The documents: links, commands, settings, paths and names that they mention exist."""

from __future__ import annotations

import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from foldcp.pipeline.cli import app
from foldcp.pipeline.config import keys, load
from foldcp.pipeline.reporting.query import format_rows
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.training.settings_file import TrainFile, read_train_settings
from tests.support.synthetic_results import INFO, finishing

ROOT = Path(__file__).parents[1]
SOURCES = ("foldcp", "pipeline", "datasets", "tests", "docs")
FOLDERS = tuple(
    ROOT / name
    for name in (".", "docs", "docs/training", "configs/cluster", "configs/train", "datasets/demo")
)
PAGES = sorted(page for folder in FOLDERS for page in folder.glob("*.md"))
MAX_README_LINES = 150

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(
    r"(?<![\w/<.:-])((?:foldcp|pipeline|datasets|tests|configs|docs|examples|\.ci)/[\w./-]*)"
)
PYTHON_FILE = re.compile(r"(?<![\w/*])(\w+\.py)\b")
DOTTED = re.compile(r"foldcp(?:\.\w+)+")
CLASS_OR_CONSTANT = re.compile(r"[A-Z]\w*(?:[a-z]\w*|_\w+)")
CALL = re.compile(r"(\w+)\([\w, ]*\)")
LAUNCHER = re.compile(r"^torchrun( --\w+ \d+)* -m foldcp ")
PLACEHOLDERS = re.compile(r"NAME|COMMAND")

group = typer.main.get_command(app)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code_lines(text: str) -> list[str]:
    """The lines of indented and fenced blocks, those that end in a backslash joined."""
    text = text.replace("\\\n", " ")
    fenced = [line for _, body in FENCE.findall(text) for line in body.splitlines()]
    indented = [line for line in FENCE.sub("", text).splitlines() if line.startswith("    ")]
    return [line.strip() for line in fenced + indented]


def as_foldcp(line: str) -> list[str] | None:
    """The words after `foldcp` of a command, None for anything else."""
    line = LAUNCHER.sub("foldcp ", line)
    if not re.match(r"foldcp [a-z]", line):
        return None
    line = line.split("#")[0].split(" | ")[0].split(" > ")[0]
    return shlex.split(line)[1:]


def commands(text: str) -> list[list[str]]:
    inline = [code for code in INLINE.findall(FENCE.sub("", text)) if " " in code]
    found = map(as_foldcp, [*code_lines(text), *inline])
    return [words for words in found if words]


@cache
def source_text() -> str:
    files = [path for top in SOURCES for path in (ROOT / top).rglob("*.py")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@cache
def python_files() -> frozenset[str]:
    return frozenset(path.name for top in SOURCES for path in (ROOT / top).rglob("*.py"))


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    try:
        pkgutil.resolve_name(dotted)
    except (ImportError, AttributeError):
        return False
    return True


@each_page
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    missing = [target for target in local if not (page.parent / target).exists()]
    assert not missing


@each_page
def test_commands_are_accepted_by_the_parser(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        name, *arguments = words
        command = group.commands[name]
        known = {"--help"}
        for parameter in command.params:
            known.update(parameter.opts, parameter.secondary_opts)
        assert {word for word in arguments if word.startswith("-")} <= known, words
        overrides = [value for option, value in pairwise(words) if option == "--set"]
        if name == "train":
            read_train_settings(None, overrides)
        else:
            load(None, overrides)
        is_whole = arguments and "…" not in words and "--help" not in words
        if is_whole and name in ("score", "fold") and "--out" not in words:
            is_whole = False  # a fragment in the text
        if is_whole:
            command.make_context(name, list(arguments))


@each_page
def test_settings_in_the_text_exist(page: Path) -> None:
    trained = set(keys(TrainFile))
    known = set(keys()) | trained | {key.rpartition(".")[0] for key in trained}
    sections = {key.split(".")[0] for key in known} - {"write", "log"}  # names of files, too
    for code in INLINE.findall(page.read_text(encoding="utf-8")):
        key, equals, _ = code.partition("=")
        if equals and key in set(keys()):
            load(None, [code])
        elif re.fullmatch(r"\w+\.\w+", key) and key.split(".")[0] in sections:
            assert key in known or key.endswith((".json", ".py", ".md")), code


@each_page
def test_paths_in_the_text_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = {path.rstrip("./-") for path in PATH.findall(text) if not PLACEHOLDERS.search(path)}
    missing = sorted(path for path in named if not (ROOT / path).exists())
    missing += sorted(set(PYTHON_FILE.findall(text)) - python_files())
    assert not missing


@each_page
def test_names_in_the_text_exist(page: Path) -> None:
    codes = INLINE.findall(page.read_text(encoding="utf-8"))
    dotted = {name for code in codes for name in DOTTED.findall(code)}
    assert not sorted(name for name in dotted if not exists(name))
    classes = {code for code in codes if CLASS_OR_CONSTANT.fullmatch(code)}
    unknown = [name for name in classes if not re.search(rf"\b{name}\b", source_text())]
    calls = {match[1] for code in codes if (match := CALL.fullmatch(code))}
    unknown += [name for name in calls if not re.search(rf"def {name}\b", source_text())]
    assert not sorted(unknown)


def test_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_README_LINES


def test_generated_pages_are_up_to_date() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "scripts" / "generate.py"))["PAGES"]
    for name, page in pages.items():
        written = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert written == page(), f"docs/{name}: run `make docs`"


def test_example_of_the_readme_runs(tmp_path: Path) -> None:
    (example,) = fences("python")
    command = [sys.executable, "-c", example]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_query_of_the_readme_runs(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (query,) = re.findall(r'foldcp query RUN "(.*?)"', text)
    with finishing(Store.open(tmp_path / "run", INFO)):
        pass
    assert format_rows(tmp_path / "run", query, "csv").startswith("gene_a,gene_b,name,")


def fences(language: str) -> list[str]:
    """The blocks of a language in the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [body for tag, body in FENCE.findall(text) if tag == language]


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_pre_commit_runs_what_make_lint_runs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (lint_recipe,) = re.findall(r"^lint: env\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    expected = [line.strip().replace("$(BIN)", ".venv/bin") for line in lint_recipe.splitlines()]
    (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == expected


def test_citation_names_the_version() -> None:
    citation = read_yaml("CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert str(citation["version"]) == project["version"]
    assert citation["license"] == project["license"]
    assert f"[{project['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
