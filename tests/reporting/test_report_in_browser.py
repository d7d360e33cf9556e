"""The report in a headless Chromium without a network, on a desk and on a phone.

    FOLDCP_PICTURES=docs/images python -m pytest tests/reporting/test_report_in_browser.py

also takes the pictures of the README. Skipped where there is no Chromium.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from foldcp.pipeline.evaluation.evaluate import evaluate
from foldcp.pipeline.reporting.comparison import write_comparison
from foldcp.pipeline.reporting.report import write_report
from foldcp.pipeline.reporting.run_tables import fresh_rows
from foldcp.pipeline.storage.store import Store
from tests.support.report.evaluation_table import write_evaluation_table
from tests.support.report.large_run import write_large_run
from tests.support.report.references import write_references
from tests.support.synthetic_results import INFO, finishing

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"none of {', '.join(BROWSERS)} is there")

EVIL = "</script><img src=x onerror=document.title='evil'>"
LONG = "a-name-without-any-space-" * 8
INVENTED = replace(INFO, untrained=False, checkpoint="none: invented numbers", input="invented.tsv")
WHITE = "rgb(255, 255, 255)"
WIDTHS = {"desk": (1280, 860), "phone": (390, 800)}
# 3-D without a graphics card.
ARGUMENTS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@dataclass(frozen=True)
class OpenPage:
    """A page in the browser, and what it must not have: errors, and requests."""

    page: Any
    path: Path
    complaints: list[str]

    def go(self, part: str) -> None:
        """Open a part of the page and wait until it is drawn."""
        name = part.partition("=")[0]
        self.page.goto(f"file://{self.path}#{part}")
        self.wait(name)

    def wait(self, part: str) -> None:
        self.page.wait_for_selector(f"body[data-ready={part}]", state="attached", timeout=60_000)

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def cells(self, table: str, field: str) -> list[str]:
        return self.texts(f"#{table} .tabulator-row .tabulator-cell[tabulator-field='{field}']")

    def check(self) -> None:
        """Nothing was complained of, and nothing is wider than the window."""
        assert self.complaints == []
        assert self.page.title() != "evil"
        width = self.page.viewport_size["width"]
        assert self.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        arguments = [*ARGUMENTS, "--no-sandbox"] if os.geteuid() == 0 else ARGUMENTS
        found = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield found
        found.close()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 62 complexes, one of them failed, the first six with structures."""
    folder = tmp_path_factory.mktemp("runs") / "invented-numbers"
    names = {0: EVIL, 1: LONG, 4: "trimer", 39: "unkept"}
    write_large_run(folder, 62, 6, 3, INVENTED, names, structure_samples="all")
    write_evaluation_table(folder, 70)
    write_report(folder)
    return folder


@pytest.fixture(params=WIDTHS)
def view(request: pytest.FixtureRequest, browser: Any) -> Iterator[Any]:
    """A function that opens a page at a width."""
    width, height = WIDTHS[request.param]
    context = browser.new_context(
        viewport={"width": width, "height": height}, offline=True, accept_downloads=True
    )

    def open_page(path: Path) -> OpenPage:
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: _note_request(r.url, complaints))
        return OpenPage(page, path, complaints)

    yield open_page
    context.close()


def _note_request(url: str, complaints: list[str]) -> None:
    if not url.startswith(("file:", "data:", "blob:")):
        complaints.append(f"request of {url}")


def take_picture(opened: OpenPage, name: str) -> None:
    """A picture of the README, where a folder for them is given."""
    folder = os.environ.get("FOLDCP_PICTURES")
    if folder:
        opened.page.mouse.move(2, 2)
        opened.page.wait_for_timeout(500)
        opened.page.screenshot(path=Path(folder) / name)


def open_complex(opened: OpenPage, name: str) -> None:
    """Search a complex in their table and click it."""
    rows = "#complexes-table .tabulator-row"
    opened.page.fill("#complexes-filters input[type=search]", name)
    opened.page.wait_for_function(f"document.querySelectorAll('{rows}').length === 1")
    # The one row may still be that of the search before.
    opened.page.locator(f"{rows} a", has_text=name).click()
    opened.wait("complex")


def is_wide(opened: OpenPage) -> bool:
    return opened.page.viewport_size["width"] > 1000


def test_every_part_opens_without_complaint(view: Any, out: Path) -> None:
    opened = view(out / "report.html")
    for part in ("overview", "complexes", "interfaces", "cost", "reading"):
        opened.go(part)
        assert opened.texts("nav a[aria-current]") != []
        opened.check()
    opened.go("overview")
    assert opened.page.locator("#part-overview canvas").count() >= 10
    assert "61 complexes scored" in " ".join(opened.texts(".card")).replace("\n", " ")
    take_picture(opened, "report.png" if is_wide(opened) else "report-phone.png")
    opened.go("cost")
    assert opened.page.locator("#part-cost canvas").count() == 3
    if is_wide(opened):
        take_picture(opened, "report-cost.png")


def test_names_are_text(view: Any, out: Path) -> None:
    opened = view(out / "report.html")
    opened.go("complexes")
    for name in (EVIL, LONG):
        open_complex(opened, name)
        assert opened.texts("#part-complex .complex-head h2") == [name]
        opened.check()
        opened.go("complexes")


def test_interfaces_are_sorted_searched_filtered_and_exported(
    view: Any, out: Path, tmp_path: Path
) -> None:
    opened = view(out / "report.html")
    page = opened.page
    opened.go("interfaces")
    if is_wide(opened):
        take_picture(opened, "report-interfaces.png")
    shown = [float(text) for text in opened.cells("interfaces-table", "value")]
    assert len(shown) > 5 and shown == sorted(shown, reverse=True)
    # Sorting by the keyboard.
    header = page.locator("#interfaces-table .tabulator-col[tabulator-field=value]")
    header.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#interfaces-table .tabulator-col[aria-sort=ascending]")
    rising = [float(text) for text in opened.cells("interfaces-table", "value")]
    assert rising == sorted(rising) and rising[0] < shown[0]
    header.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#interfaces-table .tabulator-col[aria-sort=descending]")
    page.fill("#interfaces-filters input[step='0.05']", "0.8")
    count = "document.getElementById('interfaces-count').textContent"
    total = page.evaluate(count)
    page.wait_for_function(f"{count} !== {total!r}")
    kept = [float(text) for text in opened.cells("interfaces-table", "value")]
    assert kept and min(kept) >= 0.8
    # By accession.
    page.fill("#interfaces-filters input[type=search]", "p00001")
    filtered = page.evaluate(count)
    page.wait_for_function(f"{count} !== {filtered!r}")
    with page.expect_download() as download:
        page.click("text=Export CSV")
    path = tmp_path / "interfaces.csv"
    download.value.save_as(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == int(page.evaluate(count).split()[0])
    assert all("P00001" in (row["accession_a"], row["accession_b"]) for row in rows)
    assert all(float(row["ipsae_d0res_mean"]) >= 0.8 for row in rows)
    opened.check()


def test_copies_are_merged(view: Any, out: Path) -> None:
    opened = view(out / "report.html")
    page = opened.page
    opened.go("interfaces")
    counts = {}
    for grouping in ("chains", "molecules", "complexes"):
        page.select_option("#interfaces-filters select >> nth=0", grouping)
        page.wait_for_timeout(500)
        text = page.inner_text("#interfaces-count")
        counts[grouping] = int(text.split(" of ")[1].split()[0].replace(",", ""))
    assert counts["chains"] > counts["molecules"] > counts["complexes"] > 0
    opened.check()


def test_complex_shows_its_structure_which_turns(view: Any, out: Path) -> None:
    opened = view(out / "report.html")
    page = opened.page
    opened.go("complexes")
    open_complex(opened, "trimer")
    assert page.locator("#part-complex canvas").count() >= 5
    viewer = page.locator(".viewer")
    before = viewer.screenshot()
    viewer.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(400)
    turned = viewer.screenshot()
    assert turned != before
    page.click("#part-complex button:text-is('Chain')")
    page.wait_for_timeout(400)
    assert viewer.screenshot() != turned
    page.select_option("#part-complex form select", "iptm")
    page.wait_for_timeout(400)
    opened.check()


def test_complex_shows_the_sample_and_the_pair_that_are_chosen(view: Any, out: Path) -> None:
    opened = view(out / "report.html")
    page = opened.page
    opened.go("complexes")
    open_complex(opened, "trimer")
    captions = "#part-complex figcaption"
    assert opened.texts(".samples label") == [
        "mean of all",
        *(f"sample {sample}{' (best)' * (not place)}" for place, sample in enumerate(by_rank(out))),
    ]
    best, second, _ = by_rank(out)
    assert any(text.startswith(f"Sample {best}, the best one") for text in opened.texts(captions))
    page.select_option("#part-complex form select", "ipsae_d0res")
    # The radio buttons by the keyboard: from the mean to the best sample, and to the next.
    page.locator(".samples input[value=mean]").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector(f"#part-complex h2:text-is('Interfaces of sample {second}')")
    page.wait_for_timeout(300)
    texts = opened.texts(captions)
    assert any(text.startswith(f"Sample {second}, not the best one") for text in texts)
    assert any(text.startswith("Depth of the alignment") for text in texts)
    rows = fresh_rows(out, "interfaces")
    rows = rows[(rows["name"] == "trimer") & (rows["sample"] == second)]
    pair = rows[(rows["chain_a"] == "A") & (rows["chain_b"] == "B")].iloc[0]
    page.click(".interfaces button >> nth=0")
    page.wait_for_selector(".detail")
    words = page.inner_text(".detail")
    for end in "ab":
        residues = pair[f"interface_residues_{end}"].split(":")[1]
        assert residues.replace("-", "–").replace(",", ", ") in words
    assert f"{pair['ipsae_d0res']:.3f}" in words
    assert "AFDB gate" in words and "DockQ against experiment" in words
    assert page.url.endswith("/0-1")
    opened.check()
    if is_wide(opened):
        page.evaluate("window.scrollTo(0, 0)")
        take_picture(opened, "report-complex.png")
    before = page.locator(".viewer").screenshot()
    page.click(".detail button:text-is('Close')")
    page.wait_for_timeout(300)
    assert page.locator(".viewer").screenshot() != before
    assert not page.locator(".detail").count()


def by_rank(out: Path) -> list[int]:
    """The samples of the trimer, the best one first."""
    rows = fresh_rows(out, "complexes")
    return rows[rows["name"] == "trimer"].sort_values("rank")["sample"].astype(int).tolist()


def test_a_pair_opens_from_the_interfaces_that_pass_the_gate(view: Any, out: Path) -> None:
    opened = view(out / "report.html")
    page = opened.page
    opened.go("interfaces")
    page.select_option("#interfaces-filters select:has(option[value=fails])", "fails")
    rows = "#interfaces-table .tabulator-row"
    gates = f'[...document.querySelectorAll("{rows} [tabulator-field=gate]")]'
    page.wait_for_function(f"{gates}.every((cell) => cell.innerText === 'fails')")
    page.select_option("#interfaces-filters select:has(option[value=fails])", "passes")
    page.wait_for_function(
        f"{gates}.length && {gates}.every((cell) => cell.innerText === 'passes')"
    )
    page.locator(f"{rows} [tabulator-field=value] >> nth=0").click()
    opened.wait("complex")
    assert "passes" in page.inner_text(".detail")
    opened.check()


def test_scores_are_shown_against_experiment(view: Any, out: Path) -> None:
    opened = view(out / "report.html")
    page = opened.page
    opened.go("overview")
    names = opened.texts("#evaluation tbody td:first-child")
    assert "ipSAE (d0 of residues)" in names and "PAE mean" in names
    plot = page.locator("#evaluation canvas")
    before = plot.screenshot()
    page.select_option("#evaluation select", "pae_mean")
    page.wait_for_timeout(400)
    assert plot.screenshot() != before
    opened.check()


def test_the_experimental_structure_is_beside_the_sample(view: Any, tmp_path: Path) -> None:
    write_large_run(tmp_path / "run", 2, 1, 2, INVENTED)
    (key,) = write_references(tmp_path / "run", tmp_path / "references")
    evaluate(tmp_path / "run", tmp_path / "references")
    opened = view(write_report(tmp_path / "run"))
    page = opened.page
    opened.go(f"complex={key}")
    button = page.get_by_role("button", name="Experiment")
    picture = page.locator(".viewer canvas")
    assert button.get_attribute("aria-pressed") == "true"
    assert "experiment" in page.inner_text(".bands")
    assert "in grey the experimental structure" in page.inner_text("main")
    before = picture.screenshot()
    button.click()
    page.wait_for_timeout(400)
    assert button.get_attribute("aria-pressed") == "false"
    assert "experiment" not in page.inner_text(".bands")
    assert picture.screenshot() != before
    opened.check()


# What is drawn beyond the paper, and texts of plots that are light.
CLIPPED = """() => [...document.querySelectorAll("main :is(table, figure, svg, canvas, img)")]
  .filter((one) => one.getBoundingClientRect().right > document.body.getBoundingClientRect().right)
  .map((one) => one.outerHTML.slice(0, 80))"""
LIGHT = """() => [...document.querySelectorAll("svg text")].map((one) => one.getAttribute("fill"))
  .filter((fill) => fill && parseInt(fill.slice(1, 3), 16) > 0x99)"""


def test_the_page_is_printed_on_white_without_controls(view: Any, out: Path) -> None:
    opened = view(out / "report.html")
    page = opened.page
    page.emulate_media(color_scheme="dark")
    for part in ("overview", "interfaces", "cost", "complex"):
        if part == "complex":
            opened.go("complexes")
            open_complex(opened, "trimer")
        else:
            opened.go(part)
        page.emulate_media(media="print", color_scheme="dark")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(CLIPPED) == [] == page.evaluate(LIGHT)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == WHITE
        assert (
            not page.locator("nav, .skip, main select, main input[type=search]")
            .locator("visible=true")
            .count()
        )
        if part == "interfaces":
            assert page.locator(".tabulator-print-table tr").count() == 201
            assert "The first 200 of" in page.inner_text("#part-interfaces .printed")
        if part == "complex":
            assert page.locator(".viewer img").count() == 1
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        page.emulate_media(media="screen", color_scheme="dark")
        assert page.locator("nav a").first.is_visible()
        assert not page.locator(".viewer img, .tabulator-print-table").count()
        opened.check()


def test_the_page_is_operated_by_the_keyboard(view: Any, out: Path) -> None:
    opened = view(out / "report.html")
    page = opened.page
    focused = "document.activeElement"
    opened.go("interfaces")
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate(f"{focused}.id") == "content"
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.closest('#interfaces-filters') !== null")
    assert page.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"
    # Into the table, whose rows are one stop of the tab key, and down by arrow keys.
    page.locator("#interfaces-table .tabulator-tableholder").focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    row = f"{focused}.closest('.tabulator-row')"
    rows = "document.querySelectorAll('#interfaces-table .tabulator-row')"
    assert page.evaluate(f"[...{rows}].indexOf({row})") == 1
    assert page.evaluate(f"getComputedStyle({row}).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    opened.wait("complex")
    assert page.locator(".detail").count() == 1
    opened.check()


def test_complex_without_a_structure_in_the_page_says_where_it_is(view: Any, out: Path) -> None:
    opened = view(out / "report.html")
    opened.go("complexes")
    open_complex(opened, "unkept")
    assert "structures/" in opened.page.inner_text("#part-complex")
    opened.check()


def test_a_run_of_failures_only_and_an_empty_one(view: Any, tmp_path: Path) -> None:
    for name, num_complexes in (("failures", 0), ("empty", None)):
        out = tmp_path / name
        if num_complexes is None:
            with finishing(Store.open(out, INFO)):
                pass
        else:
            write_large_run(out, num_complexes, 0)
        opened = view(write_report(out))
        for part in ("overview", "complexes", "interfaces", "cost", "reading"):
            opened.go(part)
            opened.check()
        assert "UNTRAINED" in opened.page.inner_text(".warning >> nth=0")


@pytest.fixture(scope="module")
def comparison(out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    other = tmp_path_factory.mktemp("runs") / "other"
    write_large_run(other, 30, 0, 2, INVENTED)
    return write_comparison(out, other)


def test_comparison_of_two_runs(view: Any, comparison: Path) -> None:
    opened = view(comparison)
    opened.go("comparison")
    opened.check()
    sizes = [float(text) for text in opened.cells("comparison-table", "size")]
    assert len(sizes) > 3 and sizes == sorted(sizes, reverse=True)
    opened.page.select_option("#comparison-score", "iptm")
    opened.page.wait_for_timeout(500)
    opened.check()
