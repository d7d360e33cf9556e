"""Packed columns, and what of structures, PAE and attempts goes into them."""

from __future__ import annotations

import json
from pathlib import Path

import gemmi
import numpy as np
import pytest

from foldcp.metrics.interface.pae_blocks import PaeBlock
from foldcp.pipeline.reporting.embedding import columns, libraries, pae, traces
from foldcp.pipeline.reporting.embedding.cost import gpu_names
from foldcp.pipeline.reporting.page import safe_json
from foldcp.pipeline.storage.results.pae_file import write_pae
from foldcp.structure.predicted import PredictedStructure
from foldcp.structure.write import structure_format, write_structure
from tests.support.report.helix_bundles import bundle_coordinates
from tests.support.report.page import unpack
from tests.support.synthetic import synthetic_layout

NAN = float("nan")


def as_page(block: str) -> str:
    return f'<script type="text/plain" id="block-x">{block}</script>'


def test_pack_keeps_every_kind_of_column() -> None:
    rng = np.random.default_rng(0)
    packed = {
        "texts": columns.texts(["a", "</script>", "a", None, "\u00e4"]),
        "shares": columns.decimals(np.array([0.12344, NAN, 1.0, 0.0])),
        "large": columns.decimals(np.array([1e9, -2e6, NAN])),
        "none": columns.decimals(np.array([NAN, NAN])),
        "empty": columns.decimals(np.zeros(0)),
        "floats": columns.floats(np.array([1e-9, NAN, 3e12])),
        "integers": columns.integers(np.array([-5, NAN, 2e9])),
        "small": columns.small_numbers(np.array([[0.0, 31.75], [NAN, 99.0]]), 0.125),
        "steps": columns.differences(np.array([100.05, -1500.0, 1500.0]), 0.05),
        "places": columns.differences(np.arange(90_000) + 70_000, 1),
        "noise": columns.decimals(rng.uniform(0, 32, 1000)),
    }
    block = columns.pack(packed, {"edges": [1, 2]})
    assert block.isascii() and "<" not in block
    found = unpack(as_page(block), "x")
    assert found["facts"] == {"edges": [1, 2]}
    assert found["texts"] == ["a", "</script>", "a", "", "\u00e4"]
    np.testing.assert_allclose(found["shares"], [0.1234, NAN, 1, 0], atol=1e-9)
    np.testing.assert_allclose(found["large"], [1e9, -2e6, NAN], rtol=1e-6)
    assert np.isnan(found["none"]).all() and len(found["empty"]) == 0
    np.testing.assert_array_equal(found["floats"], [1e-9, NAN, 3e12])
    np.testing.assert_array_equal(found["integers"], [-5, NAN, 2e9])
    np.testing.assert_array_equal(found["small"], [0, 31.75, NAN, 31.75])
    np.testing.assert_allclose(found["steps"], [100.05, -1500, 1500], atol=1e-6)
    np.testing.assert_array_equal(found["places"], np.arange(90_000) + 70_000)
    values = np.random.default_rng(0).uniform(0, 32, 1000)
    np.testing.assert_allclose(found["noise"], values, atol=5.1e-4)


def test_safe_json_cannot_end_a_script() -> None:
    texts = {"</script>": "<!-- & --> \u2028"}
    text = safe_json(texts)
    assert not set("<>&") & set(text) and json.loads(text) == texts


@pytest.mark.parametrize("size", [3, 160, 161, 500])
def test_read_pae_gives_means_of_squares(tmp_path: Path, size: int) -> None:
    rng = np.random.default_rng(1)
    matrix = np.round(rng.uniform(0.25, 31.75, (size, size)) * 4).astype(np.float32) / 4
    block = PaeBlock(0, 0, 0, (matrix * 4).astype(np.int8))
    write_pae(tmp_path / "0_pae.h5", ["A"], [0, size], np.ones((1, 1), bool), [block])
    found = pae.read_pae(tmp_path / "0_pae.h5")
    edges = pae.bin_edges(size)
    assert found is not None and found.shape == (min(size, 160),) * 2
    assert edges[0] == 0 and edges[-1] == size and len(edges) == len(found) + 1
    for i, j in ((0, 0), (1, 2), (len(found) - 1, 0)):
        square = matrix[edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
        assert found[i, j] == pytest.approx(square.mean(), rel=1e-5)


def test_read_pae_names_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "0_pae.h5"
    path.write_bytes(b"\x89HDF is not one")
    with pytest.raises(ValueError, match=r"0_pae\.h5: damaged"):
        pae.read_pae(path)


def test_read_pae_leaves_out_what_was_not_kept(tmp_path: Path) -> None:
    """Of two chains only the frames of the second with the tokens of the first, in 170 tokens."""
    kept = np.array([[False, False], [True, False]])
    block = PaeBlock(0, 90, 0, np.full((80, 90), 12, np.int8))
    write_pae(tmp_path / "x.h5", ["A", "B"], [0, 90, 170], kept, [block])
    found = pae.read_pae(tmp_path / "x.h5")
    assert found is not None
    edges = pae.bin_edges(170)
    inside = (edges[1:, None] > 90) & (edges[None, :-1] < 90)
    np.testing.assert_array_equal(found, np.where(inside, 3.0, np.nan))


def write_bundles(path: Path, lengths: list[int], scale: float = 1.0) -> np.ndarray:
    layout = synthetic_layout([("protein", ["ALA"] * length) for length in lengths])
    coords = bundle_coordinates(layout) * scale
    plddt = np.linspace(0, 1, sum(lengths)).astype(np.float32)
    structure = PredictedStructure(layout, coords, plddt, "x")
    write_structure(path, structure, structure_format(path))
    return coords


def read_columns(path: Path, names: list[str]) -> dict[str, object]:
    return unpack(as_page(columns.pack(traces.read_trace(path, names))), "x")


@pytest.mark.parametrize("name", ["0.cif", "0.cif.gz", "0.bcif"])
def test_read_trace_finds_helices(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_bundles(path, [60, 60])
    found = read_columns(path, ["A", "B"])
    assert found["atom_name"] == ["CA", "O"] * 120
    folds = "".join(found["residue_fold"])
    assert folds[4:20] == "h" * 16 and "c" in folds[24:29]


def test_read_trace_seeks_no_helices_in_a_structure_that_has_fallen_apart(tmp_path: Path) -> None:
    write_bundles(tmp_path / "0.cif", [60], scale=1000.0)
    found = read_columns(tmp_path / "0.cif", ["A"])
    assert found["residue_fold"] == ["c"] * 60


def test_read_trace_keeps_alpha_carbons_of_large_structures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "0.cif"
    write_bundles(path, [10])
    monkeypatch.setattr(traces, "MAX_DETAILED_RESIDUES", 9)
    assert read_columns(path, ["A"])["atom_name"] == ["CA"] * 10


def test_a_trace_keeps_what_the_ribbon_of_a_nucleic_acid_needs() -> None:
    """3Dmol.js begins a ribbon at a P, and knows its plane from the OP2 that follows."""
    residue = gemmi.Residue()
    residue.name = "DA"
    for number, name in enumerate(("OP1", "OP2", "P", "O5'", "C5'", "C3'", "O3'", "C1'", "N9")):
        atom = gemmi.Atom()
        atom.name = name
        atom.pos = gemmi.Position(number, 0, 0)
        residue.add_atom(atom)
    chain = gemmi.Chain("A")
    chain.add_residue(residue)
    found = unpack(as_page(columns.pack(traces.trace_of_chains([(0, chain)]))), "x")
    assert found["atom_name"] == ["P", "OP2", "O5'", "C5'", "C3'", "O3'", "C1'"]


def test_read_trace_names_a_damaged_file(tmp_path: Path) -> None:
    for content in ("data_x\nloop_\n_atom_site.id\n'", "data_x\n"):
        (tmp_path / "0.cif").write_text(content)
        with pytest.raises(ValueError, match=r"0\.cif"):
            traces.read_trace(tmp_path / "0.cif", ["A"])


def test_libraries_are_those_of_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    found = libraries.embedded_libraries()
    assert {entry["package"] for entry in found} >= {"vega", "vega-lite", "tabulator-tables"}
    folder = Path(libraries.__file__).parents[1] / "libraries"
    for entry in found:
        assert (folder / f"{entry['package']}.LICENSE").stat().st_size > 500
    entries = json.loads((folder / "manifest.json").read_text())
    entries[0]["sha256"] = "0" * 64
    monkeypatch.setattr(json, "loads", lambda text: entries)
    with pytest.raises(ValueError, match=r"vega\.min\.js\.gz: damaged"):
        libraries.embedded_libraries()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", [""]),
        ("n1:0", ["n1:0"]),
        ("n1:0,3", ["n1:0", "n1:3"]),
        ("n1:0,1,n2:0", ["n1:0", "n1:1", "n2:0"]),
        ("fe80::1:2", ["fe80::1:2"]),
    ],
)
def test_gpu_names(text: str, names: list[str]) -> None:
    assert gpu_names(text) == names
