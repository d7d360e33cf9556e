"""Trees of YAML, parsed strictly and within limits, with libyaml and without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from foldcp.datasets.parsing import yaml_tree
from foldcp.datasets.parsing.yaml_tree import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, parse
from foldcp.datasets.reader import read


@pytest.fixture(params=["CBaseLoader", "BaseLoader"], autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(yaml, request.param):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(yaml_tree, "_LOADER", getattr(yaml, request.param))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a: NO\nb: 017\nc: ~\nd:\ne: 1_0\nf: '2'",
            {"a": "NO", "b": "017", "c": "~", "d": "", "e": "1_0", "f": "2"},
        ),
        (
            "- [a, b]\n- {c: [d]}\n- >\n  two\n  lines\n",
            [["a", "b"], {"c": ["d"]}, "two lines\n"],
        ),
        ('{"id": ["A", "B"], "x": {"y": 1}}', {"id": ["A", "B"], "x": {"y": "1"}}),
        ("a: &x [1, 2]\nb: *x\n", {"a": ["1", "2"], "b": ["1", "2"]}),
        ("&k key: v\nother: *k\n", {"key": "v", "other": "key"}),
        ("!!python/name:os.system x", "x"),
        ("<<: {a: b}\nc: d", {"<<": {"a": "b"}, "c": "d"}),
        ("# nothing\n", ""),
        ("---\na: b\n...\n", {"a": "b"}),
        ("[]", []),
        ("{}", {}),
    ],
)
def test_parse_keeps_every_scalar_as_text(text: str, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: b\na: c", "the key 'a' occurs twice (line 2, column 1)"),
        ("x:\n- {a: b, c: d, a: e}", "the key 'a' occurs twice (line 2, column 16)"),
        ("[a]: b", "a key is not a string (line 1"),
        ("? {a: b}\n: c", "a key is not a string (line 1"),
        ("a: *x", "the alias '*x' has no anchor before it (line 1, column 4)"),
        ("a: &x [*x]", "the alias '*x' has no anchor before it (line 1, column 8)"),
        ("a: &x 1\nb: &x 2", "the anchor '&x' occurs twice (line 2"),
        ("a: b\n---\nc: d", "expected one document, got another (line 2"),
        ("a: [1\nb: 2", "line 2"),
        ("a:\n\t- b", "line 2, column 1"),
        ("a: \x07", "not valid YAML"),
        ('"\\ud800"', "not valid YAML"),
    ],
)
def test_parse_of_invalid_yaml_names_the_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="not valid YAML") as caught:
        parse(text)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "[{a: "])
def test_parse_bounds_the_nesting(opening: str) -> None:
    with pytest.raises(ValueError, match=f"nested more than {MAX_DEPTH} levels deep"):
        parse(opening * 100_000)


def test_parse_reads_nesting_up_to_the_limit() -> None:
    node = parse("[" * MAX_DEPTH + "x" + "]" * MAX_DEPTH)
    for _ in range(MAX_DEPTH):
        assert isinstance(node, list)
        [node] = node
    assert node == "x"


def test_parse_counts_aliases_as_what_they_expand_to() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 5)]
    node = parse("\n".join(lines[:5]))
    assert isinstance(node, dict)
    with pytest.raises(
        ValueError,
        match=rf"more than {MAX_NODES:,} values, with aliases expanded \(line 6",
    ):
        parse("\n".join([*lines, f"a5: &a5 [{', '.join(['*a4'] * 10)}]"]))


def test_parse_bounds_the_size() -> None:
    with pytest.raises(ValueError, match=f"more than {MAX_CHARACTERS:,} characters"):
        parse("a" * (MAX_CHARACTERS + 1))


@pytest.mark.parametrize("start", ['{"atom_plddts": [1.0], ', "- 1\n", "[{a: b}, ", "name: x\n"])
def test_parse_refuses_an_unknown_key_before_the_rest_is_read(start: str) -> None:
    """The rest is not YAML, so an error about it would show that it was read."""
    with pytest.raises(
        ValueError,
        match=r"the known keys are sequences, version|expected the keys sequences, version",
    ):
        parse(start + "]]\t}{", ("sequences", "version"))


def test_parse_allows_any_keys_below_the_top() -> None:
    assert parse("sequences: [{other: 1}]", ("sequences",)) == {"sequences": [{"other": "1"}]}


def test_parse_reads_a_mapping_of_many_keys() -> None:
    num_keys = 100_000 if yaml_tree._LOADER is not yaml.BaseLoader else 5_000
    keys = [f"k{number}" for number in range(num_keys)]
    assert parse("\n".join(f"{key}: 1" for key in keys)) == dict.fromkeys(keys, "1")


def test_read_names_the_program_of_a_design(tmp_path: Path) -> None:
    text = "entities:\n- protein: {id: A, sequence: 80..140}\n"
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: a design of BoltzGen")
    assert "which is not supported" in str(caught.value)
