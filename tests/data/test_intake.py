import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mutagen.flac import FLAC

from longplay.chords import TimedChord
from longplay.data.intake import find_recordings
from longplay.data.manifest import Measured, Passage, Track, write_manifest
from longplay.errors import ConfigError, UserError
from longplay.prompt import Section


def audio(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(4800, np.float32), 48000)
    return path


def test_a_folder_with_sidecars_and_tags(tmp_path: Path) -> None:
    song = audio(tmp_path / "a" / "b" / "My Song.flac")
    tags = FLAC(song)
    tags.update({"title": "Tagged", "artist": "Ada", "album": "Seas", "genre": "Dub"})
    tags.save()
    song.with_suffix(".txt").write_text("deep dub\n\n  slow and wet  \n")
    song.with_suffix(".json").write_text(
        json.dumps({"title": "Given", "sections": "intro:0-4,verse:4-9", "license": "CC0"})
    )
    audio(tmp_path / ".hidden" / "x.wav")
    audio(tmp_path / "z.WAV")
    (tmp_path / "notes.txt").write_text("no song")
    first, second = find_recordings(tmp_path).recordings
    assert (first.source, second.source) == ("z.WAV", "a/b/My Song.flac")
    given = second.given
    assert (given.title, given.author, given.album, given.genre, given.licence) == (
        "Given",
        "Ada",
        "Seas",
        "dub",
        "CC0",
    )
    assert given.captions == ("deep dub", "slow and wet")
    assert given.sections == (Section(label="intro", start=0, end=4), Section(label="verse", start=4, end=9))
    assert second.id.startswith("my-song-")
    assert len({first.id, second.id}) == 2


def test_what_was_made_of_music_is_not_taken_for_music(tmp_path: Path) -> None:
    for name in (
        "a.wav",
        "new/audio/b.wav",
        "old/audio/c.wav",
        "old/quality/c.wav",
        "run/corpus/audio/d.wav",
        "run/e.wav",
    ):
        audio(tmp_path / name)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.jsonl").write_text("a user's own")
    audio(tmp_path / "mine" / "f.wav")
    (tmp_path / "old" / "manifest.jsonl").touch()
    (tmp_path / "run" / "finetune.yaml").touch()
    sources = ["a.wav", "mine/f.wav"]
    assert [each.source for each in find_recordings(tmp_path, tmp_path / "new").recordings] == sources
    assert len(find_recordings(tmp_path / "old").recordings) == 2  # it is asked for


def test_each_real_folder_is_visited_once(tmp_path: Path) -> None:
    audio(tmp_path / "music" / "a.wav")
    audio(tmp_path / "music" / "sub" / "b.wav")
    audio(tmp_path / "elsewhere" / "c.wav")
    for link, target in {"sub/up": "..", "0": "sub", "1": "../elsewhere", "2": "../elsewhere"}.items():
        (tmp_path / "music" / link).symlink_to(target)
    sources = [each.source for each in find_recordings(tmp_path / "music").recordings]
    assert sources == ["a.wav", "sub/b.wav", "1/c.wav"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_manifests(tmp_path: Path, suffix: str) -> None:
    audio(tmp_path / "audio" / "one.wav")
    path = tmp_path / f"list.{suffix}"
    if suffix == "csv":
        path.write_text('audio,caption,bpm,split\naudio/one.wav,"calm, wide",90,test\n/far/two.wav,,,\n')
    else:
        path.write_text(
            '{"audio": "audio/one.wav", "caption": "calm, wide", "bpm": 90, "split": "test"}\n\n{"path": "/far/two.wav"}\n'
        )
    one, two = find_recordings(path).recordings
    assert one.path == tmp_path / "audio" / "one.wav"
    assert (one.given.captions, one.given.bpm, one.given.split) == (("calm, wide",), 90, "test")
    assert two.path == Path("/far/two.wav")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.jsonl", '{"path": "a.wav", "caption": "Wait\x85 what\u2028?"}\r\n{"path": "b.wav"}'),
        ("list.csv", "path,caption\r\na.wav,Wait\x85 what\u2028?\r\nb.wav,\r\n"),
    ],
)
def test_only_a_line_feed_ends_a_line(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode())
    first, second = find_recordings(tmp_path / name).recordings
    assert first.given.captions == ("Wait\x85 what\u2028?",)
    assert second.source == "b.wav"


def test_only_a_line_feed_ends_a_caption_or_a_published_line(tmp_path: Path) -> None:
    audio(tmp_path / "a.wav").with_suffix(".txt").write_text("Wait\x85 what\u2028?\nslow\n")
    assert find_recordings(tmp_path).recordings[0].given.captions == ("Wait\x85 what\u2028?", "slow")
    (tmp_path / "wav.scp").write_text("u1 a\u2028.wav\n")
    (tmp_path / "text").write_text("u1\t<|0|><|intro|><|Wait\x85 what|><|9|>\n")
    (found,) = find_recordings(tmp_path).recordings
    assert (found.source, found.given.captions) == ("a\u2028.wav", ("Wait\x85 what",))


def test_cells_of_several_lines_and_of_several_instruments(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(
        b'path,caption,instruments\r\n,,\r\na.wav,"calm,\nand wide","piano, strings"\r\n\r\nb.wav,,bass;drums\r\n'
    )
    first, second = find_recordings(tmp_path / "list.csv").recordings
    assert (first.given.captions, first.given.instruments) == (("calm,\nand wide",), ("piano", "strings"))
    assert (second.given.captions, second.given.instruments) == ((), ("bass", "drums"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.wav,calm, wide", r'list.csv:2: has more fields than columns; put "quotes" around what holds a comma'),
        ('"a\n.wav",1\nb.wav,-5', r"list.csv:4: bpm = '-5': must be greater than 0"),
        ('a.wav,"calm\nb.wav,wide', r"list.csv:2: is not CSV \(unexpected end of data\); check its quotes"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(f"path,bpm\n{rows}\n")
    with pytest.raises(ConfigError, match=message):
        find_recordings(tmp_path / "list.csv")


def test_a_manifest_of_ours_is_taken_whole(tmp_path: Path) -> None:
    audio(tmp_path / "a.wav")
    track = Track(
        id="a", path="a.wav", seconds=0.1, split="valid", kind="real", title="Rain", source="s", licence="CC0",
        author="Ada", codec_ok=True, captions=("slow",), passages=(Passage(start=0, end=0.1, captions=("quiet",)),),
        sections=(Section(label="intro", start=0, end=0.1),), bpm=90, key="A minor", genre="dub", instruments=("bass",),
        chords=(TimedChord(start=0, name="Am"),), bars=(0.0,), offset=1.0,
        measured=Measured(brightness=900, density=2, loudness=(0,) * 8),
    )  # fmt: skip
    untold = {name for name in Track.model_fields if getattr(track, name) == Track.model_fields[name].default}
    assert untold == {"speed"}, "which no manifest on disk has"
    write_manifest(tmp_path / "manifest.jsonl", [track])
    (found,) = find_recordings(tmp_path / "manifest.jsonl").recordings
    assert (found.given.title, found.given.bpm, found.given.split) == ("Rain", 90, "valid")


def test_the_published_pair(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "wav.scp").write_text("u1 clips/a.wav\nu2\t/my music/b.wav\nu3 c.wav\nu4 d.wav\n\n")
    (tmp_path / "text").write_text(
        "u1\t<|30.0|><|verse2|><|Slow jazz, with brushes.|><|60.0|>\n"
        "u2\t<|-1.0|><|bridge|><|Rock.|><|9|>\nu3\t<|9|><|intro|><|x|><|9|>\n"
        "u5 <|0|><|intro|><|Left behind.|><|9|>\n"
    )
    intake = find_recordings(tmp_path)
    first, second = intake.recordings
    assert first.path == tmp_path / "clips" / "a.wav"
    assert first.given.captions == ("Slow jazz, with brushes.",)
    assert (first.given.offset, first.given.sections) == (30, (Section(label="verse", start=0, end=30),))
    assert second.path == Path("/my music/b.wav")
    assert (second.given.offset, second.given.sections) == (0, ())
    assert "no section for the labels bridge (1); known are intro, verse" in caplog.text
    assert {utt: reason.partition(":")[0] for utt, reason in intake.dropped.items()} == {
        "u3": "no time",
        "u4": "no text",
        "u5": "no audio",
    }


def test_of_a_published_pair_without_a_match_the_reason_is_said(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("u1 a.wav\nu2 b.wav\n")
    (tmp_path / "text").write_text("u1 just words\nu2 more words\n")
    with pytest.raises(UserError, match=r"none of 2 recordings can be used; of u1: no text: no line of the form"):
        find_recordings(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"path": "a.wav", "tempo": 3}', r"list.jsonl:1: unknown key 'tempo'"),
        ('{"path": "a.wav", "sections": "intro:4-2"}', "list.jsonl:1: section 'intro:4-2'"),
        ('{"path": "a.wav", "sections": "intro:0-4,verse:3-9"}', "list.jsonl:1: sections intro:0-4 and verse:3-9 overlap"),
        ('{"path": "a.wav", "key": "8A"}', "list.jsonl:1: .*key '8A': expected a form like 'F# minor' or 'F#m'"),
        ('{"path": "a.wav", "bpm": 0}', "list.jsonl:1: bpm = 0: must be greater than 0"),
        ('{"title": "x"}', "list.jsonl:1: expected the audio file as one of path"),
        ("[1]", "list.jsonl:1: holds list"),
        ("{", "list.jsonl:1: is not JSON"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "list.jsonl").write_text(line + "\n")
    with pytest.raises(ConfigError, match=message):
        find_recordings(tmp_path / "list.jsonl")


def test_nothing_and_doubles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        find_recordings(tmp_path / "nowhere")
    with pytest.raises(UserError, match="names no audio file"):
        find_recordings(tmp_path)
    with pytest.raises(UserError, match="is the folder of the music itself"):
        find_recordings(tmp_path, tmp_path / "x" / "..")
    (tmp_path / "list.jsonl").write_text('{"path": "a.wav", "id": "x"}\n{"path": "b.wav", "id": "x"}\n')
    with pytest.raises(UserError, match="id 'x': both a.wav and b.wav"):
        find_recordings(tmp_path / "list.jsonl")


def test_an_id_cannot_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"path": "a.wav", "id": "../../etc/x"}\n')
    (recording,) = find_recordings(tmp_path / "list.jsonl").recordings
    assert "/" not in recording.id
