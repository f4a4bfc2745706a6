"""Shards that all processes of a machine map."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longplay.data import mapped as module
from longplay.data.mapped import mapped
from longplay.data.storage import open_folder
from longplay.data.token_tracks import figures_of, read_token_tracks
from longplay.errors import TrainingError


def write(path: Path, semantic: list[Any], acoustic: list[Any] | None = None) -> None:
    columns = {
        "utt": [f"t{index}" for index in range(len(semantic))],
        "text": ["slow piano"] * len(semantic),
        "split": ["valid" if index % 3 == 2 else "train" for index in range(len(semantic))],
        "semantic_token": semantic,
    }
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns if acoustic is None else columns | {"acoustic_token": acoustic}), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lengths = (3000, 1, 200, 5000, 40, 60)
    semantic = [[rng.integers(0, 4096, length).tolist()] for length in lengths]
    acoustic = [rng.integers(0, 1024, (2 * length, 4)).tolist() for length in lengths]
    write(tmp_path / "tokens" / "00000.parquet", semantic[:4], acoustic[:4])
    write(tmp_path / "tokens" / "00001.parquet", semantic[4:], acoustic[4:])
    return tmp_path / "tokens"


def test_a_mapped_shard_says_what_the_file_says_and_holds_no_memory(folder: Path) -> None:
    before = pa.total_allocated_bytes()
    table = mapped(open_folder(folder), "00000.parquet")
    assert pa.total_allocated_bytes() - before < table.nbytes / 20
    parquet = pq.read_table(folder / "00000.parquet")
    for column in parquet.column_names:
        assert table[column].to_pylist() == parquet[column].to_pylist()
    assert table.schema.field("semantic_token").type == pa.list_(pa.list_(pa.int16()))


def test_tracks_are_read_from_the_map_when_asked_for(folder: Path) -> None:
    tracks = read_token_tracks(folder, "train")
    assert [track.utt for track in tracks] == ["t0", "t1", "t3", "t0", "t1"]
    assert tracks[3].semantic.tolist() == pq.read_table(folder / "00001.parquet")["semantic_token"][0][0].as_py()
    assert tracks[-1].utt == "t1"
    assert [track.utt for track in tracks[1:3]] == ["t1", "t3"]
    assert not tracks[0].semantic.flags.owndata
    assert not tracks[0].semantic.flags.writeable
    assert tracks[0] is tracks[0]
    with pytest.raises(IndexError):
        tracks[5]


def test_figures_are_those_of_the_pieces(folder: Path) -> None:
    tracks = read_token_tracks(folder, "train")
    for told, counted in zip(tracks.figures, figures_of(list(tracks)), strict=True):
        assert list(told) == list(counted)
    chosen = tracks.where(np.array([False, True, True, False, True]))
    assert [track.utt for track in chosen] == chosen.figures.utts == ["t1", "t3", "t1"]
    assert chosen.figures.lengths.tolist() == [1, 5000, 60]


def test_a_shard_that_changed_is_mapped_anew_and_its_old_copy_goes(folder: Path) -> None:
    assert len(read_token_tracks(folder, "train")[0].semantic) == 3000
    write(folder / "00000.parquet", [[[7, 8]]])
    assert read_token_tracks(folder, "train")[0].semantic.tolist() == [7, 8]
    assert len(list(module.cache_folder().rglob("00000.parquet.*.arrow"))) == 1


def test_copies_of_a_folder_that_is_gone_go(folder: Path) -> None:
    read_token_tracks(folder, "train")
    folder.rename(folder.parent / "moved")
    assert len(list(module.cache_folder().glob("shards/*"))) == 1
    read_token_tracks(folder.parent / "moved", "train")
    assert len(list(module.cache_folder().glob("shards/*"))) == 1


def test_of_several_that_need_a_copy_one_makes_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, write_copy = list[str](), module._write
    monkeypatch.setattr(module, "_write", lambda file, name, copy: (made.append(name), write_copy(file, name, copy)))
    start = threading.Barrier(4)

    def read() -> None:
        start.wait()
        mapped(open_folder(folder), "00001.parquet")

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["00001.parquet"]


def test_flat_lists_of_published_shards_are_counted_too(tmp_path: Path) -> None:
    write(tmp_path / "tokens" / "a.parquet", [[1, 2, 3], [4095]])
    tracks = read_token_tracks(tmp_path / "tokens", "train")
    assert tracks.figures.lengths.tolist() == [3, 1]
    assert tracks.figures.largest.tolist() == [3, 4095]
    assert tracks[0].semantic.tolist() == [1, 2, 3]


def test_a_damaged_shard_is_named_and_leaves_no_copy(folder: Path) -> None:
    whole = (folder / "00000.parquet").read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 4 : len(whole) // 2] = bytes(len(whole) // 2 - len(whole) // 4)
    for broken in (whole[: len(whole) // 2], bytes(damaged)):
        (folder / "00000.parquet").write_bytes(broken)
        with pytest.raises(TrainingError, match="00000.parquet: is no token shard"):
            read_token_tracks(folder, "train")
    assert not list(module.cache_folder().rglob("00000.parquet.*.arrow"))


def test_what_cannot_be_mapped_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "00002.parquet", [[[70000]]])
    with pytest.raises(TrainingError, match=r"00002.parquet: semantic_token: .*70000"):
        read_token_tracks(folder, "train")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "file")
    with pytest.raises(TrainingError, match="set LONGPLAY_CACHE to a folder that can hold the shards"):
        read_token_tracks(folder, "train")
