"""PAE in a file: what was kept comes back, block by block."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from foldcp.metrics.chains import ChainSpans
from foldcp.metrics.interface.pae_blocks import pae_blocks
from foldcp.pipeline.storage.results.pae_file import PaeFile, write_pae

STARTS = (0, 300, 301, 420)
NAMES = ("A", "heme", "B2")


def write(path: Path, kept: np.ndarray) -> np.ndarray:
    """A file of what is kept of a random PAE."""
    spans = ChainSpans(STARTS, ("protein", "ligand", "protein"))
    pae = np.random.default_rng(1).uniform(0.25, 31.75, (420, 420)).astype(np.float32)
    blocks = pae_blocks(torch.from_numpy(pae), 0, spans, kept, 0)
    write_pae(path, NAMES, STARTS, kept, blocks)
    return pae


def test_pae_is_read_by_chains_and_by_tokens(tmp_path: Path) -> None:
    path = tmp_path / "0_pae.h5"
    pae = write(path, np.ones((3, 3), bool))
    with PaeFile(path) as file:
        assert (file.chain_names, file.chain_starts, file.num_tokens) == (NAMES, STARTS, 420)
        block = file.between("A", "B2")
        assert block.dtype == np.float32 and block.shape == (300, 119)
        np.testing.assert_allclose(block, pae[:300, 301:], rtol=0, atol=0.125)
        np.testing.assert_allclose(file.between("B2", "A"), pae[301:, :300], rtol=0, atol=0.125)
        part = file.read(slice(290, 303), slice(5, 9))
        np.testing.assert_allclose(part, pae[290:303, 5:9], rtol=0, atol=0.125)


def test_pairs_that_were_not_kept_take_no_space(tmp_path: Path) -> None:
    kept = np.zeros((3, 3), bool)
    kept[np.ix_([1, 2], [1, 2])] = True
    write(tmp_path / "whole.h5", np.ones((3, 3), bool))
    pae = write(tmp_path / "pair.h5", kept)
    assert (tmp_path / "pair.h5").stat().st_size < (tmp_path / "whole.h5").stat().st_size / 3
    with PaeFile(tmp_path / "pair.h5") as file:
        np.testing.assert_array_equal(file.kept, kept)
        np.testing.assert_allclose(file.between("B2", "heme"), pae[301:, 300:301], atol=0.125)
        with pytest.raises(ValueError, match=r"pair\.h5: the PAE of chains A and B2 was not kept"):
            file.between("A", "B2")
        assert np.isnan(file.read(slice(0, 300), slice(None))).all()
        with pytest.raises(ValueError, match="no chain 'C'; there are A, heme, B2"):
            file.between("A", "C")


def test_missing_blocks_are_never_written_as_if_they_were_there(tmp_path: Path) -> None:
    spans = ChainSpans(STARTS, ("protein",) * 3)
    kept = np.ones((3, 3), bool)
    blocks = pae_blocks(torch.ones(420, 420), 0, spans, kept, 0)
    with pytest.raises(AssertionError, match="pairs of tokens were written"):
        write_pae(tmp_path / "x.h5", NAMES, STARTS, kept, blocks[1:])


def test_files_that_are_no_pae_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "0_pae.h5"
    with pytest.raises(ValueError, match=r"0_pae\.h5: no such file|0_pae\.h5: No such file"):
        PaeFile(path)
    write(path, np.ones((3, 3), bool))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"0_pae\.h5: damaged"):
        PaeFile(path)


def test_full_disk_is_an_error_that_the_process_survives(tmp_path: Path) -> None:
    program = """
import resource
import numpy as np
from pathlib import Path
from foldcp.metrics.interface.pae_blocks import PaeBlock
from foldcp.pipeline.storage.results.pae_file import write_pae

resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
steps = np.random.default_rng(0).integers(1, 127, (500, 500), dtype=np.int8)
for _ in range(2):
    try:
        write_pae(Path("0_pae.h5"), ["A"], (0, 500), np.ones((1, 1), bool),
                  [PaeBlock(0, 0, 0, steps)])
    except OSError as error:
        print(error.errno)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout.split()) == (0, [str(errno.EFBIG)] * 2), ended.stderr
