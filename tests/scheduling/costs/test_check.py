"""The script that checks the cost model's promise on a run."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime
from pathlib import Path

import pytest

from foldcp.pipeline.storage.store import Store
from tests.support.synthetic_results import ATTEMPT, INFO

SCRIPT = Path(__file__).parents[3] / "docs" / "scripts" / "check_cost_model.py"


@pytest.mark.parametrize(
    ("slowness", "peak", "is_kept"),
    [(1.1, 40e9, True), (1.4, 40e9, False), (1.1, 60e9, False)],
)
def test_promise_is_kept_or_broken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    slowness: float,
    peak: float,
    is_kept: bool,
) -> None:
    store = Store.open(tmp_path / "run", INFO)
    for number in range(12):
        # The first fold of the group compiles its kernels.
        seconds = 100.0 if number == 0 else 10.0 * slowness
        row = {
            "attempt": number + 1,
            "outcome": "done",
            "started": datetime(2026, 11, 29, 12, number, tzinfo=UTC),
            "num_tokens": 2_000,
            "group_size": 1,
            "gpus": "host:0",
            "precision": "mixed",
            "seconds": seconds,
            "predicted_seconds": 10.0,
            "peak_bytes": int(peak) if number == 3 else 30 * 10**9,
            "predicted_bytes": 20 * 10**9,
            "predicted_peak_bytes": 50 * 10**9,
        }
        store.put_attempt(ATTEMPT | row)
    store.close()
    monkeypatch.setattr("sys.argv", [str(SCRIPT), str(tmp_path / "run")])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert end.value.code == (0 if is_kept else 1)
    out = capsys.readouterr().out
    assert f"{abs(1 / slowness - 1):.1%} off in the median of 11 folds" in out
    assert f"in {1.0 if peak < 50e9 else 11 / 12:.1%} of 12 folds" in out
