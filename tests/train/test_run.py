"""What a run records of its data, and where that may lie."""

from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile as sf
import torch

from longplay.train.run import data_digest
from longplay.train.samples import write_sample


def test_the_digest_of_shards_is_the_same_wherever_they_lie(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.makedirs("/digest", exist_ok=True)
    digests = []
    for tail in (b"one", b"two"):
        for name in ("a.parquet", "b.tar"):
            data = bytes(100_000) + name.encode() + tail
            (tmp_path / name).write_bytes(data)
            memory.pipe(f"/digest/{name}", data)
        digests.append(data_digest(tmp_path))
        assert data_digest("memory://digest") == digests[-1]
    assert digests[0] != digests[1]
    (tmp_path / "b.tar").unlink()
    assert data_digest(tmp_path) not in digests


def test_a_manifest_is_known_by_its_text(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text("{}\n")
    first = data_digest(path)
    path.write_text("{} \n")
    assert data_digest(path) != first


def test_a_sample_that_does_not_fit_on_the_disk_is_an_error_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise sf.LibsndfileError(2)

    monkeypatch.setattr("soundfile.write", full)
    with pytest.raises(OSError, match=r"0\.wav") as error:
        write_sample(tmp_path / "0", None, torch.from_numpy(np.zeros(4096, np.float32)), 8000)
    assert error.value.strerror
