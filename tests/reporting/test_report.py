"""The report against the rows that it sums up, and with names that look like HTML."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from foldcp.complex import Chain, Complex, InvalidComplex
from foldcp.features.layout import Layout
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.reporting import report
from foldcp.pipeline.reporting.best_interfaces import best_interfaces, format_best
from foldcp.pipeline.reporting.embedding import columns, details
from foldcp.pipeline.reporting.report import write_report
from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.types import Attempt
from foldcp.pipeline.storage.results.invalid_records import invalid_rows
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.results.result_files import result_files
from foldcp.pipeline.storage.results.result_rows import attempt_row, failed_rows, result_rows
from foldcp.pipeline.storage.staleness import Present
from foldcp.pipeline.storage.store import Store
from foldcp.predict import Prediction
from tests.support.report.page import Tags, block_names, unpack
from tests.support.synthetic import synthetic_layout, synthetic_prediction
from tests.support.synthetic_results import INFO, finishing

PROVENANCE = Provenance("untrained:tiny", True, 0, 2, "fp32", 64)
EVIL = "<script>alert('x')</script> & \"co\""
# Z before AB: pairs keep the order of the chains, not that of the alphabet.
NAMES = ["Z", "AB", "lig"]


def a_task(name: str, key: str) -> Task:
    chains = (
        Chain("Z", "protein", "AG", accession="P1"),
        Chain("AB", "protein", "GSA", accession="P<2>"),
        Chain("lig", "ligand", ccd=("ZN",)),
    )
    return Task(Complex(name, chains, title=f"title of {name}"), key * 32, 6, 1)


def a_layout() -> Layout:
    chains = [
        ("protein", ["ALA", "GLY"]),
        ("protein", ["GLY", "SER", "ALA"]),
        ("ligand", ["ZN"]),
    ]
    layout = synthetic_layout(chains, NAMES)
    layout.chain_coverage[0] = np.array([2, 1], np.int32)
    return layout


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, dict[str, Prediction]]:
    """Two complexes of three samples, one failure, two invalid ones for one reason."""
    layout = a_layout()
    predictions = {}
    with finishing(Store.open(tmp_path / "run", replace(INFO, input=EVIL))) as store:
        for seed, name in enumerate(["one", EVIL]):
            task = a_task(name, str(seed))
            predictions[name] = synthetic_prediction(layout, 3, seed)
            store.put(
                task.key,
                result_rows(task, layout, predictions[name], PROVENANCE),
                result_files(task, layout, predictions[name], PROVENANCE),
            )
            attempt = Attempt(
                task,
                1,
                FoldShape(2, "fp32", 5, 64),
                1,
                (("n", 2),),
                0.0,
                130.0,
                4.0,
                "done",
                "",
                (),
            )
            store.put_attempt(
                attempt_row(
                    attempt,
                    datetime(2026, 1, 2, tzinfo=UTC),
                    "n:2",
                    3,
                    1e9,
                    2e9,
                    {"trunk": 60.0},
                    10**9,
                )
            )
        failed = a_task("too large", "f")
        store.put(failed.key, failed_rows(failed, "needs <512> GPUs", PROVENANCE))
        records = [InvalidComplex(name, "P9: no sequence") for name in ("u1", "u2")]
        for key, rows in invalid_rows(records, PROVENANCE).items():
            store.put(key, rows)
    return tmp_path / "run", predictions


def test_best_interfaces_are_ranked_by_the_worse_direction(
    run: tuple[Path, dict[str, Prediction]],
) -> None:
    out, predictions = run
    found = best_interfaces(out)
    assert len(found) == 2 * 3 and (found["num_samples"] == 3).all()
    expected = {}
    for name, prediction in predictions.items():
        for a, b in combinations(range(3), 2):
            ipsae = [(s.ipsae_d0res[a, b], s.ipsae_d0res[b, a]) for s in prediction.scores]
            expected[name, NAMES[a], NAMES[b]] = np.mean([min(pair) for pair in ipsae])
            (row,) = found[
                (found["name"] == name)
                & (found["chain_a"] == NAMES[a])
                & (found["chain_b"] == NAMES[b])
            ].iloc
            np.testing.assert_allclose(
                [row["ipsae_ab"], row["ipsae_ba"]], np.mean(ipsae, 0), rtol=1e-5
            )
            iptm = [(s.pair_iptm[a, b], s.pair_iptm[b, a]) for s in prediction.scores]
            np.testing.assert_allclose(
                [row["iptm_ab"], row["iptm_ba"]], np.mean(iptm, 0), rtol=1e-5
            )
            pae = np.mean([min(s.pae_min[a, b], s.pae_min[b, a]) for s in prediction.scores])
            assert row["pae_min"] == pytest.approx(pae) and row["num_contacts"] == pytest.approx(
                np.mean([s.contacts[a, b] for s in prediction.scores])
            )
            assert (row["accession_a"], row["accession_b"]) == tuple(
                ["P1", "P<2>", ""][i] for i in (a, b)
            )
    ranked = sorted((k for k, v in expected.items() if v == v), key=lambda k: -expected[k])
    assert (
        list(zip(found["name"], found["chain_a"], found["chain_b"], strict=True))[: len(ranked)]
        == ranked
    )
    assert (
        len(ranked) == 2 and found["ipsae_min"].isna().tolist() == [False] * 2 + [True] * 4
    )  # ligands come last
    assert best_interfaces(out, 1)["name"].tolist() == [ranked[0][0]]
    firsts = []
    for number, (name, prediction) in enumerate(predictions.items()):
        firsts.append(int(np.argmax([s.confidence_score for s in prediction.scores])))
        paths = set(found[found["name"] == name]["structure"])
        assert (
            paths == {f"structures/{str(number) * 2}/{str(number) * 32}/{firsts[-1]}.cif.gz"}
            and (out / paths.pop()).exists()
        )
    assert firsts != [0, 0]


def test_format_best_is_an_aligned_table(run: tuple[Path, dict[str, Prediction]]) -> None:
    out, _ = run
    lines = format_best(out, 3).splitlines()
    assert lines[0].startswith("UNTRAINED: random weights, so")
    assert len(lines) == 1 + 1 + 3 and len({len(line) for line in lines[1:]}) == 1
    first = best_interfaces(out, 1).iloc[0]
    expected = [f"{first[name]:.3f}" for name in ("ipsae_ab", "ipsae_ba", "iptm_ab", "iptm_ba")]
    cells = lines[2].split()
    assert cells[-8:-2] == ["Z-AB", "P1-P<2>", *expected]
    assert cells[-2:] == [f"{first['pae_min']:.1f}", f"{first['num_contacts']:.0f}"]
    assert lines[4].split()[-6:-4] == ["-", "-"]  # a ligand has no ipSAE


def read_page(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_write_report_is_complete_and_escaped(run: tuple[Path, dict[str, Prediction]]) -> None:
    out, _ = run
    path = write_report(out)
    assert path == out / "report.html" and not list((out / ".tmp").iterdir())
    page = read_page(path)
    tags = Tags(page)
    for tag, attributes in tags.seen:
        # Nothing from elsewhere, and no script but ours and the libraries.
        assert tag not in ("link", "img", "iframe") and "src" not in attributes
        assert not (attributes.get("href") or "#").startswith(("http", "/", "."))
        assert not any(name.startswith("on") for name in attributes)
    assert "<script>alert" not in page
    assert EVIL in tags.text and "needs <512> GPUs" in tags.text
    for expected in (
        "UNTRAINED",
        "2 complexes scored",
        "1 failed",
        "2 invalid",
        "6 structures",
        "6 chain pairs",
        "8 min 40 s GPU time",  # two attempts of 130 s on 2 ranks
        "2 Sequence not found invalid Give a file",
        "2 × P9: no sequence u1, u2",
        "1 More GPUs needed than there are failed Run the same command",
        "trunk 2 min 00 s, 100%",
        "2 attempts, 0 of them without a result",
        "foldcp 0.1.0",
        INFO.command,
    ):
        assert expected in tags.words, expected


def test_write_report_has_the_tables(run: tuple[Path, dict[str, Prediction]]) -> None:
    out, predictions = run
    page = read_page(write_report(out))
    complexes = unpack(page, "complexes")
    assert complexes["name"] == sorted([EVIL, "one", "too large", "u1", "u2"])
    assert complexes["outcome"].count("done") == 2
    chains = unpack(page, "chains")
    assert chains["chain"] == NAMES * 2 and chains["accession"] == ["P1", "P<2>", ""] * 2
    pairs = unpack(page, "pairs")
    for row, number in enumerate(pairs["complex"].astype(int)):
        scores = predictions[complexes["name"][number]].scores
        a, b = (int(pairs[f"row_{end}"][row]) % 3 for end in "ab")
        assert a < b
        values = [s.pair_iptm[ends] for s in scores for ends in ((a, b), (b, a))]
        found = [pairs[f"iptm_{name}"][row] for name in ("min", "max", "mean")]
        expected = [min(values), max(values), np.mean(values)]
        np.testing.assert_allclose(found, expected, atol=6e-5)
        ipsae = [s.ipsae_d0res[ends] for s in scores for ends in ((a, b), (b, a))]
        np.testing.assert_allclose(pairs["ipsae_d0res_mean"][row], np.mean(ipsae), atol=6e-5)
    attempts = unpack(page, "attempts")
    assert attempts["seconds"].tolist() == [130, 130] and attempts["gpus"] == ["n:2"] * 2


def test_write_report_has_each_sample_and_its_structure(
    run: tuple[Path, dict[str, Prediction]],
) -> None:
    out, predictions = run
    page = read_page(write_report(out))
    names = unpack(page, "complexes")["name"]
    number = names.index("one")
    samples = unpack(page, f"samples-{number}")
    matrices = samples["iptm"].reshape(3, 3, 3)
    expected = np.array([s.pair_iptm for s in predictions["one"].scores])
    np.testing.assert_allclose(matrices, expected, atol=6e-5)
    prediction = predictions["one"]
    layout = a_layout()
    kept = [place for place, name in enumerate(layout.atom_name) if name in ("CA", "O", "ZN")]
    for sample in range(3):
        structure = unpack(page, f"structure-{number}-{sample}")
        atoms = structure["atom_name"]
        assert atoms == ["CA", "O", "CA", "O", "CA", "O", "CA", "O", "CA", "O", "ZN"]
        coords = np.stack([structure[f"atom_{axis}"] for axis in "xyz"], 1)
        np.testing.assert_allclose(coords, prediction.coords[sample][kept], atol=0.03)
        plddt = 100 * prediction.plddt[sample]
        np.testing.assert_allclose(structure["residue_plddt"], plddt, atol=0.26)
        assert structure["residue_chain"].tolist() == [0, 0, 1, 1, 1, 2]


def test_write_report_has_interface_residues_clashes_and_alignments(
    run: tuple[Path, dict[str, Prediction]],
) -> None:
    out, predictions = run
    page = read_page(write_report(out))
    number = unpack(page, "complexes")["name"].index("one")
    found = unpack(page, f"samples-{number}")
    scores = predictions["one"].scores
    names = ("sample", "chain_a", "chain_b", "a", "b")
    rows = zip(*(found[f"residues_{name}"] for name in names), strict=True)
    residues = {(int(sample), int(a), int(b)): texts for sample, a, b, *texts in rows}
    texts = [score.interface.interface_residues for score in scores]
    assert residues == {
        (sample, a, b): [texts[sample][a][b], texts[sample][b][a]]
        for sample in range(3)
        for a, b in combinations(range(3), 2)
    }
    assert found["depth"].tolist() == [2, 1] and found["depth_chain"].tolist() == [0, 0]
    samples = unpack(page, "samples")
    places = np.flatnonzero(samples["complex"] == number)
    assert len(places) == 3
    for place in places:
        score = scores[int(samples["sample"][place])]
        best = np.nanmax(score.ipsae_d0res)
        np.testing.assert_allclose(samples["best_pair"][place], best, atol=1e-4)
        clashes = np.nansum(score.interface.clashes) // 2
        assert samples["num_clashes"][place] == clashes


def test_depths_of_long_chains_are_means_of_some_residues() -> None:
    depths = np.arange(250, dtype=np.int32)
    chains = [None, depths, np.zeros(0, np.int32)]
    packed = columns.pack(details._depth_columns(chains))
    found = unpack(f'id="block-x">{packed}</script>', "x")
    assert found["depth_chain"].tolist() == [1] * 125
    assert found["depth_residue"].tolist() == list(range(1, 251, 2))
    # Means of two, rounded to the even one.
    np.testing.assert_allclose(found["depth"], np.arange(0.5, 250, 2), atol=0.5)


def test_write_report_spends_no_more_bytes_than_it_may(
    run: tuple[Path, dict[str, Prediction]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = run
    page = read_page(write_report(out))
    size = sum(len(block) for block in re.findall(r'id="block-[^>]*>([^<]*)<', page))
    monkeypatch.setattr(report, "MAX_DATA_BYTES", size - 1)
    smaller = block_names(read_page(write_report(out)))
    assert set(smaller) < set(block_names(page))
    assert {"complexes", "pairs", "chains", "samples", "attempts"} <= set(smaller)


def test_write_report_of_trained_weights_has_no_warning(tmp_path: Path) -> None:
    info = replace(INFO, untrained=False, checkpoint="boltz2_conf.ckpt", checkpoint_sha256="ab12")
    with finishing(Store.open(tmp_path / "run", info)):
        pass
    words = Tags(read_page(write_report(tmp_path / "run"))).words
    assert "UNTRAINED" not in words and "boltz2_conf.ckpt ab12" in words
    assert "None: no complex of two or more chains has a result." in words
    assert (
        format_best(tmp_path / "run")
        == "no interfaces: no complex of two or more chains has a result"
    )
    assert best_interfaces(tmp_path / "run").empty


def test_write_report_during_a_run_and_after_a_kill(tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed = Store.open(out, INFO)
    killed._lock.close()
    with finishing(Store.open(out, INFO)):
        words = Tags(read_page(write_report(out))).words
    assert " - interrupted - - - foldcp score" in words and " - running - - - foldcp score" in words


def test_write_report_counts_notes_by_subject_and_text(tmp_path: Path) -> None:
    layout = a_layout()
    out = tmp_path / "run"
    with finishing(Store.open(out, INFO)) as store:
        for number in range(7):
            task = a_task(f"c{number}", str(number))
            notes = [f"msa: no <alignment> for P{number}"]
            if number > 2:
                notes.append("stoichiometry: not given: one copy; a guess")
            task = replace(task, complex=replace(task.complex, notes=tuple(notes)))
            prediction = synthetic_prediction(layout, 2)
            store.put(task.key, result_rows(task, layout, prediction, PROVENANCE))
        record = InvalidComplex("c9", "P9: no sequence", notes=("msa: no <alignment> for P0",))
        ((key, rows),) = invalid_rows([record], PROVENANCE).items()
        store.put(key, rows)
    words = Tags(read_page(write_report(out))).words
    assert "Notes on the inputs" in words
    assert " msa no <alignment> for P0 2 c0, c9 no <alignment> for P1 1 c1 " in words
    assert " no <alignment> for P4 1 c4 2 other notes 2 " in words
    assert " stoichiometry not given: one copy; a guess 4 c3, c4, c5, … " in words
    assert "<alignment> for P6" not in words


@pytest.mark.parametrize("keep", [False, True])
def test_reports_count_stale_results_and_leave_them_out(
    run: tuple[Path, dict[str, Prediction]], keep: bool
) -> None:
    out, _ = run
    with finishing(Store.open(out, INFO)) as store:
        store.mark_stale(Present(frozenset({"0" * 32, "f" * 32})), keep)
    assert set(best_interfaces(out)["name"]) == {"one"}
    line = "1 stale result, of an earlier input or other settings, left out."
    assert format_best(out).splitlines()[1] == line
    words = Tags(read_page(write_report(out))).words
    assert line in words
    for expected in (
        "1 complexes scored",
        "1 failed",
        "0 invalid",
        "3 structures",
    ):
        assert expected in words, expected


def test_format_best_escapes_control_characters(tmp_path: Path) -> None:
    """And one that is not UTF-8, in the tables, on the page and on the terminal."""
    layout = a_layout()
    out = tmp_path / "run"
    with finishing(Store.open(out, replace(INFO, input="caf\udce9.fasta"))) as store:
        for number, name in enumerate(["\x1b[31mred", "caf\udce9"]):
            task = a_task(name, str(number))
            prediction = synthetic_prediction(layout, 1)
            store.put(
                task.key,
                result_rows(task, layout, prediction, PROVENANCE),
                result_files(task, layout, prediction, PROVENANCE),
            )
    text = format_best(out)
    assert r"\x1b[31mred" in text
    assert r"caf\udce9" in text
    assert all(line.isprintable() for line in text.splitlines())
    assert r"caf\udce9.fasta" in read_page(write_report(out))
    assert best_interfaces(out)["name"].unique().tolist() == [
        "\x1b[31mred",
        r"caf\udce9",
    ]


def test_reports_refuse_a_folder_without_a_run(tmp_path: Path) -> None:
    for function in (write_report, format_best, best_interfaces):
        with pytest.raises(ValueError, match="not the folder of a run"):
            function(tmp_path)
