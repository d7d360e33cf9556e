"""Other engines beside foldcp: processes of their own, and what is said where they are missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from foldcp.pipeline.bench.measurements import NotMeasured, PeerTime
from foldcp.pipeline.bench.peers import beside
from foldcp.pipeline.bench.peers.batch import boltz_batch
from foldcp.pipeline.bench.peers.beside import measure_peer, parse_peers
from foldcp.pipeline.bench.synthetic_features import synthetic_features
from tests.support.bench import SMALL


def test_an_engine_that_is_not_installed_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(beside, "find_spec", lambda name: None)
    (missing,) = measure_peer("bioir", (512,), SMALL)
    assert missing == NotMeasured("bioir", "the package bionemo_ir is not installed here")


@pytest.mark.parametrize(("end", "reason"), [("", None), ("sys.exit('no memory')", "no memory")])
def test_an_engine_reports_each_size_from_its_own_process(
    end: str, reason: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "engine"
    program.write_text(
        f"""#!{sys.executable}
import json, sys
job = json.load(sys.stdin)
assert sys.argv[1:] == ["-m", "foldcp.pipeline.bench.peers.measure_peer", "boltz"]
print("a line of its own")
size = job["tokens"][0] + job["plan"]["steps"]
print(json.dumps(dict(tokens=size, seconds=1.5, peak_bytes=9)))
{end}
"""
    )
    program.chmod(0o755)
    monkeypatch.setattr(beside, "find_spec", lambda name: object())
    monkeypatch.setattr(beside.sys, "executable", str(program))
    measured, *failed = measure_peer("boltz", (512,), SMALL)
    assert measured == PeerTime("boltz", 512 + SMALL.steps, 1.5, 9)
    assert failed == ([NotMeasured("boltz", reason)] if reason else [])


def test_parse_peers_takes_names_in_any_number() -> None:
    assert parse_peers("") == ()
    assert parse_peers("boltz, bioir") == ("boltz", "bioir")


def test_the_batch_of_another_engine_has_its_shapes() -> None:
    features = synthetic_features(30, 5)
    batch = boltz_batch(features, torch.device("cpu"))
    A = features.num_atoms
    assert batch["res_type"].shape == (1, 30, 33)
    assert batch["msa"].shape == (1, 5, 30)
    assert batch["atom_to_token"].shape == (1, A, 30)
    assert torch.equal(batch["atom_to_token"].sum(-1)[0], (features.atom_mask > 0).long())
    assert torch.equal(batch["token_to_rep_atom"].argmax(-1)[0], features.rep_atom.long())
