import tempfile
from pathlib import Path

import numpy as np
import pytest

from longplay.audio.spool import BLOCK, Spool
from longplay.errors import AudioError


def test_what_goes_in_comes_out_in_blocks_again_and_again() -> None:
    wav = np.random.default_rng(0).standard_normal((2, BLOCK + 70_000)).astype(np.float32)
    with Spool() as spool:
        for start in range(0, wav.shape[1], 50_000):
            spool.append(wav[:, start : start + 50_000])
        assert (spool.channels, spool.samples) == wav.shape
        for _ in range(2):
            blocks = list(spool)
            assert [block.shape[1] for block in blocks] == [BLOCK, 70_000]
            assert np.array_equal(np.concatenate(blocks, axis=1), wav)
        spool.append(wav[:, :10])
        assert spool.samples == wav.shape[1] + 10


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda prefix: Path("/dev/full").open("wb", buffering=0))  # noqa: SIM115
    with Spool() as spool, pytest.raises(AudioError, match="cannot hold the piece while it is made .No space left"):
        spool.append(np.zeros((1, 10), np.float32))
