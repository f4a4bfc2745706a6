import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from longplay.data.label_page import Listening, read_rows
from longplay.data.labels import TrackLabel, apply_labels, read_labels, write_labels
from longplay.data.manifest import Passage, Track, write_manifest
from longplay.errors import ConfigError, UserError
from longplay.prompt import Section

INTRO, VERSE = Section(label="intro", start=0, end=8), Section(label="verse", start=8, end=60)

PASSAGE = Passage(start=0, end=10, captions=("heard",), style=(0.5,))


def track(name: str) -> Track:
    about = {"kind": "real", "source": "s", "licence": "CC0", "codec_ok": True}
    return Track(
        id=name, path=f"audio/{name}.wav", seconds=60, split="train", title=name.upper(),
        captions=("first", "second"), passages=(PASSAGE,), sections=(INTRO, VERSE), **about,
    )  # fmt: skip


@pytest.fixture
def listening(tmp_path: Path) -> Listening:
    return Listening([track("a"), track("b"), track("c")], tmp_path, tmp_path / "labels.jsonl")


def rows(*more: list[Any]) -> list[list[Any]]:
    return [["intro", 0, 8], ["verse", 8, 60], *more]


def test_a_caption_may_hold_what_ends_lines_elsewhere(tmp_path: Path) -> None:
    labels = {name: TrackLabel(id=name, rating=5, caption="Wait\x85 what\u2028?") for name in ("a", "b")}
    write_labels(tmp_path / "labels.jsonl", labels)
    assert read_labels(tmp_path / "labels.jsonl") == labels


def test_a_listener_rates_corrects_and_goes_on(listening: Listening, tmp_path: Path) -> None:
    shown = listening.show(0)
    assert shown.heading == "1 of 3 (0 labelled): A, 60.0 s"
    assert shown.audio == str((tmp_path / "audio" / "a.wav").resolve())
    assert (shown.rating, shown.caption, shown.sections) == (None, "first", rows())
    assert listening.save(0, 5, "first", rows())
    assert listening.save(1, 2, "  a quiet\n dub ", [["Chorus", "0", "30.5"], [None, "", None]])
    assert not listening.save(2, None, "unrated", rows())
    assert [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()] == [
        {"id": "a", "rating": 5},
        {
            "id": "b",
            "rating": 2,
            "caption": "a quiet dub",
            "sections": [{"label": "chorus", "start": 0.0, "end": 30.5}],
        },
    ]
    assert listening.show(1)[2:] == (2, "a quiet dub", [["chorus", 0, 30.5]])
    assert (listening.step(0, -1), listening.step(1, 1), listening.step(2, 1)) == (0, 2, 2)

    again = Listening(listening.tracks, tmp_path, listening.path)
    assert (again.labels, again.first) == (listening.labels, 2)
    again.save(2, 3, "", rows())
    assert again.first == 2


def test_labels_filter_and_replace(listening: Listening) -> None:
    chorus = (Section(label="chorus", start=0, end=60),)
    labels = {
        "a": TrackLabel(id="a", rating=4, caption="mine"),
        "b": TrackLabel(id="b", rating=3, sections=chorus),
        "c": TrackLabel(id="c", rating=2),
    }
    first, second = apply_labels(listening.tracks, labels, 3)
    assert (first.captions, first.sections) == (("mine",), (INTRO, VERSE))
    assert first.passages == (PASSAGE.wordless,), "a listener's words go before what was heard; it sounds as it does"
    assert second.passages == (PASSAGE,)
    assert (second.captions, second.sections) == (("first", "second"), chorus)
    with pytest.raises(ConfigError, match="none of 3 tracks is rated 5"):
        apply_labels(listening.tracks, labels, 5)


def test_some_of_what_is_rated_is_held_out() -> None:
    tracks = [track(f"t{number}") for number in range(30)]
    labels = {each.id: TrackLabel(id=each.id, rating=4) for each in tracks}
    splits = [each.split for each in apply_labels(tracks, labels, 3)]
    assert 1 <= splits.count("valid") <= 8
    assert set(splits) == {"train", "valid"}
    assert splits == [each.split for each in apply_labels(tracks, labels, 3)], "the same ones every time"
    assert sorted(each.split for each in apply_labels(tracks[:2], labels, 3)) == ["train", "valid"]
    tracks[3] = tracks[3].model_copy(update={"split": "valid"})
    assert [each.id for each in apply_labels(tracks, labels, 3) if each.split == "valid"] == ["t3"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([["bridge", 0, 8]], "row 1: label 'bridge'; use one of intro"),
        (rows(["outro", "x", 70]), "row 3: 'x' to '70' are no seconds"),
        ([["intro", 8, 2]], "row 1: .*must end after it starts"),
        (rows(["outro", 50, 60]), "overlap"),
        ([["intro", 0, 75]], "ends after the piece, which lasts 60.00 s"),
        ([["intro", "nan", 75]], "row 1"),
        ([["intro"]], "row 1: '' to '' are no seconds"),
    ],
)
def test_wrong_sections_are_named_and_nothing_is_saved(listening: Listening, wrong: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        listening.save(0, 4, "x", wrong)
    assert not listening.path.exists()


def test_a_label_that_could_not_be_written_is_not_kept(listening: Listening) -> None:
    listening.save(0, 3, "first", rows())
    before = listening.path.read_text()
    listening.path.rename(kept := listening.folder / "kept")
    listening.path.mkdir()
    for _ in range(2):
        with pytest.raises(UserError, match=r"labels.jsonl: cannot be written \(Is a directory\); .* save again"):
            listening.save(1, 4, "first", rows())
    assert (listening.first, listening.show(1).rating) == (1, None)
    listening.path.rmdir()
    kept.rename(listening.path)
    assert listening.path.read_text() == before
    assert listening.save(1, 4, "first", rows())
    assert read_labels(listening.path).keys() == {"a", "b"}


def test_rows_are_put_in_order() -> None:
    assert read_rows([["verse", 8, 60], ["intro", 0, 8]], 60) == (INTRO, VERSE)


def test_files_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    with pytest.raises(ConfigError, match="longplay data label"):
        read_labels(path)
    write_labels(path, {"b": TrackLabel(id="b", rating=1), "a": TrackLabel(id="a", rating=5)})
    assert list(read_labels(path)) == ["a", "b"]
    with path.open("a") as file:
        file.write('{"id": "c", "rating": 6}\n')
    with pytest.raises(ConfigError, match=r"labels.jsonl:3: rating = 6"):
        read_labels(path)
    with pytest.raises(UserError, match="no track to listen to"):
        Listening([], tmp_path, path)


PAGE = """
import os, sys, urllib.request
from pathlib import Path
from longplay.data.label_page import Listening, build_page
from longplay.data.manifest import read_manifest

folder = Path(sys.argv[1])
page = build_page(Listening(read_manifest(folder / "manifest.jsonl"), folder, folder / "labels.jsonl"))
kinds = [block.get_block_name() for block in page.blocks.values()]
assert {"audio", "radio", "textbox", "dataframe"} <= set(kinds), kinds
assert kinds.count("button") == 2
load, previous, on, keep = [function.fn for function in page.fns.values()]
of_keep = list(page.fns.values())[-1]
assert {name for _, name in of_keep.targets} == {"input", "blur", "submit"}
assert of_keep.trigger_mode == "always_last"  # the newest letter is not lost while others are saved
number = page.blocks[of_keep.inputs[0]._id]
assert number.get_block_name() == "number"  # of the track, beside its fields: never one without the other
rows = [["intro", 0, 8], ["verse", 8, 60]]
assert load()[:2] == [0, "1 of 3 (0 labelled): A, 60.0 s"]
place, note, *fields = on(0, 4, "first", rows)
assert (place, note, fields[0]) == (1, "saved in labels.jsonl", "2 of 3 (1 labelled): B, 60.0 s")
assert previous(1, None, "first", rows)[:2] == [0, "not saved: it has no rating"]
stays, warning, *_ = on(1, 4, "first", [["coda", 0, 3]])
assert stays == 1 and "coda" in warning
assert keep(1, 4, "first", rows) == "saved; 2 labelled"
assert load()[:2] == [2, "3 of 3 (2 labelled): C, 60.0 s"]  # a page that is loaded anew goes on where the listener was
folder.joinpath("labels.jsonl").rename(folder / "kept")
folder.joinpath("labels.jsonl").mkdir()
assert "labels.jsonl: cannot be written" in keep(2, 4, "first", rows)
stays, warning, heading, *_ = on(2, 4, "first", rows)
assert stays == 2 and "cannot be written" in warning and "(2 labelled)" in heading
folder.joinpath("labels.jsonl").rmdir()
folder.joinpath("kept").rename(folder / "labels.jsonl")
assert len((folder / "labels.jsonl").read_text().splitlines()) == 2
_, address, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", allowed_paths=[str(folder)])
html = urllib.request.urlopen(address).read().decode()
assert "Longplay: label" in html and "Save and next" in html
print("page served", flush=True)
os._exit(0)  # Gradio's threads may outlive the page
"""


def test_the_page_is_served_and_its_buttons_do_what_they_say(listening: Listening, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    write_manifest(tmp_path / "manifest.jsonl", listening.tracks)
    command = [sys.executable, "-c", PAGE, str(tmp_path)]  # Gradio keeps event loops open: not in this process
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert "page served" in done.stdout, done.stderr
