from pathlib import Path

import pytest

from longplay.chords import TimedChord
from longplay.data.attribution import attribution
from longplay.data.manifest import Track, read_manifest, write_manifest
from longplay.errors import ConfigError
from longplay.prompt import Section

TRACK = Track(
    id="b",
    path="audio/b.wav",
    seconds=61.25,
    split="train",
    kind="real",
    title="Sea | Storm",
    source="some-music/usr/share/sea.ogg",
    licence="CC-BY-3.0",
    author="Ada Ä",
    codec_ok=True,
    captions=("sea shanty", "A fast sea shanty."),
    sections=(Section(label="intro", start=0, end=6.1),),
    bpm=120.5,
    key="A minor",
    chords=(TimedChord(start=0, name="Am"),),
)


def test_round_trip_keeps_everything_and_sorts(tmp_path: Path) -> None:
    other = TRACK.model_copy(update={"id": "a", "author": None, "bpm": None, "sections": ()})
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, [TRACK, other])
    assert read_manifest(path) == [other, TRACK]
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.jsonl"]


def test_a_title_may_hold_what_ends_lines_elsewhere(tmp_path: Path) -> None:
    odd = TRACK.model_copy(update={"title": "Wait\x85 what\u2028\x0b\x1c?"})
    write_manifest(tmp_path / "manifest.jsonl", [odd, TRACK.model_copy(update={"id": "c"})])
    assert read_manifest(tmp_path / "manifest.jsonl")[0] == odd


def test_a_missing_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="longplay data corpus"):
        read_manifest(tmp_path / "manifest.jsonl")


@pytest.mark.parametrize("line", ['{"id": "x"}', "not json"])
def test_a_wrong_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text(TRACK.model_dump_json() + "\n" + line + "\n")
    with pytest.raises(ConfigError, match="manifest.jsonl:2: "):
        read_manifest(path)


def test_attribution_names_trained_works_only() -> None:
    held_out = TRACK.model_copy(update={"id": "c", "title": "Reserved", "split": "test"})
    rendered = TRACK.model_copy(update={"id": "d", "kind": "rendered", "title": "Random", "seconds": 3600.0})
    text = attribution([TRACK, held_out, rendered])
    assert "## some-music" in text
    assert "| Sea / Storm | Ada Ä | CC-BY-3.0 |" in text
    assert "Reserved" not in text
    assert "1 pieces (1.0 hours)" in text
