import itertools
from pathlib import Path

import numpy as np
import pytest

from longplay.audio import Audio
from longplay.data.manifest import Track, write_manifest
from longplay.errors import UserError
from longplay.evaluate.clips import cut_clips, eligible_tracks

RATE = 8000


def add_track(folder: Path, name: str, wav: np.ndarray, split: str = "test", kind: str = "real") -> Track:
    Audio(wav[None].astype(np.float32), RATE).save(folder / f"{name}.wav")
    return Track.model_validate(
        {
            "id": name,
            "path": f"{name}.wav",
            "seconds": len(wav) / RATE,
            "split": split,
            "kind": kind,
            "title": name,
            "source": "test",
            "licence": "PD",
            "codec_ok": True,
            "captions": (name,),
        }
    )


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    noise = 0.1 * np.random.default_rng(0).standard_normal(20 * RATE)
    half_silent = noise * (np.arange(len(noise)) > 10 * RATE)
    tracks = [
        add_track(tmp_path, "b", noise),
        add_track(tmp_path, "a", half_silent),
        add_track(tmp_path, "short", noise[:RATE]),
        add_track(tmp_path, "seen", noise, split="train"),
        add_track(tmp_path, "rendered", noise, kind="rendered"),
    ]
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, tracks)
    return path


def test_only_recorded_tracks_of_the_split_that_are_long_enough(manifest: Path) -> None:
    assert [track.id for track in eligible_tracks(manifest, "test", 2.0)] == ["a", "b"]


def test_clips_are_spread_apart_loud_and_repeatable(manifest: Path) -> None:
    tracks = eligible_tracks(manifest, "test", 2.0)
    clips, again = cut_clips(manifest, tracks, 5, 2.0), cut_clips(manifest, tracks, 5, 2.0)

    assert [clip.track.id for clip in clips] == ["a", "a", "a", "b", "b"]
    assert all(np.array_equal(one.wav, other.wav) for one, other in zip(clips, again, strict=True))
    for clip, following in itertools.pairwise(clips):
        assert clip.track.id != following.track.id or following.start - clip.start >= 2
    assert all(len(clip.wav) == 2 * RATE and clip.wav.std() > 0.02 for clip in clips)
    assert len(clips[0].at(16000)) == 4 * RATE


def test_an_empty_split_is_named(manifest: Path) -> None:
    with pytest.raises(UserError, match="no recorded track of 2 s or more in the split 'valid'"):
        eligible_tracks(manifest, "valid", 2.0)


def test_fewer_clips_than_tracks_come_from_all_over(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * RATE)
    tracks = [add_track(tmp_path, f"{index}", noise) for index in range(9)]

    assert [clip.track.id for clip in cut_clips(tmp_path / "manifest.jsonl", tracks, 3, 2.0)] == ["0", "3", "6"]
