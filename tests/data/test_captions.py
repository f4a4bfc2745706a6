import re

import numpy as np
import pytest

from longplay.analysis.measure import Facts, Texture
from longplay.data.captions import Description, captions, course, moods, passages, some_tags
from longplay.data.tags import Heard, HeardPassage
from longplay.prompt import Section

FULL = Description(
    title="Sea Storm",
    styles=("bossa nova", "jazz"),
    moods=("dark",),
    bpm=128,
    key="A minor",
    instruments=("flute", "acoustic bass", "drums"),
    sections=(Section(label="intro", start=0, end=8), Section(label="verse", start=8, end=40)),
)


def test_captions_say_what_is_known() -> None:
    found = captions(FULL)
    assert 3 <= len(found) <= 5
    assert len(set(found)) == len(found)
    assert found[0] == "bossa nova, jazz, fast, dark, 128 bpm, A minor, flute, acoustic bass, drums"
    assert "A fast, dark bossa nova piece with flute, acoustic bass and drums, 128 bpm in A minor." in found
    assert any("Sea Storm" in each for each in found)


@pytest.mark.parametrize("missing", ["bpm", "key", "title", "instruments", "moods", "styles", "sections"])
def test_captions_never_say_what_is_not_known(missing: str) -> None:
    said = {
        "bpm": r"bpm|slow|mid-tempo|fast",
        "key": "minor",
        "title": "Sea Storm",
        "instruments": "flute|bass|drums",
        "moods": "dark",
        "styles": "bossa|jazz",
        "sections": "intro|verse",
    }
    known = {name: value for name, value in FULL.dump().items() if name != missing}
    found = captions(Description.parse(known))
    assert len(found) >= 3
    assert not any(re.search(said[missing], each) for each in found)


def test_a_track_without_title_tells_its_structure() -> None:
    found = captions(FULL.model_copy(update={"title": None}))
    assert any(each.endswith("It goes intro, verse.") for each in found)


def test_nothing_known_is_still_a_caption() -> None:
    assert captions(Description()) == ("music", "Music", "Music.")


def test_moods_name_only_what_stands_out() -> None:
    even = {"seconds": 60, "loudness": (0,) * 8, "bars": (), "chords": ()}
    ordinary = Facts(brightness=1700, density=4, dynamics=7, **even)
    assert moods(ordinary) == ()
    extreme = Facts(brightness=900, density=7, dynamics=15, **even)
    assert moods(extreme) == ("dark", "busy", "dynamic")


@pytest.mark.parametrize(
    ("loudness", "said"),
    [
        ((0, -1, 0, -2, -1, 0, -1, -3), ()),
        ((-4, -2, -1, 0, 0, -1, -2, -5), ()),  # a little: nobody would say so
        ((-20, -16, -12, -9, -6, -3, 0, -1), ("builds up",)),
        ((-20, -16, -12, -13, -6, -3, 0, -30), ("builds up", "fades towards the end")),
        ((-20, -3, -15, -2, -16, 0, -14, -1), ("starts quietly",)),  # up and down is no rise
        ((-1, 0, -2, -5, -8, -12, -14, -18), ("calms down",)),
        ((0, -1, 0, -1, -2, 0, -1, -12), ("fades towards the end",)),
        ((-15, -1, 0, -1, -2, 0, -1, -2), ("starts quietly",)),
        ((0, -1, -8, -14, -15, -3, -1, 0), ("goes quiet halfway",)),
        ((0, -1, 0, -14, 0, -1, 0, 0), ()),  # a stop is no middle
    ],
)
def test_the_course_of_the_loudness_is_said_where_it_is_plain(
    loudness: tuple[float, ...], said: tuple[str, ...]
) -> None:
    assert course(loudness) == said


def test_captions_say_the_course_and_passages_do_not() -> None:
    about = FULL.model_copy(update={"course": ("builds up", "fades towards the end"), "sections": ()})
    found = captions(about)
    assert found[0].endswith("drums, builds up, fades towards the end")
    assert any(each.endswith("128 bpm in A minor. It builds up and fades towards the end.") for each in found)
    parts = passages(about, Heard(passages=(HeardPassage(0, 10, Heard()),)))
    assert not any("builds" in caption for caption in parts[0].captions)
    assert some_tags(found[0], 0.0, np.random.default_rng(0)) != found[0], "a list of tags still"


def test_a_passage_is_said_to_have_what_is_heard_in_it() -> None:
    known = Description(title="Sea Storm", styles=("bossa nova",), moods=("dark",), bpm=128, key="A minor")
    loud = Heard(styles=("jazz", "bossa nova"), instruments=("flute",), moods=("loud",))
    first, second = passages(known, Heard(passages=(HeardPassage(0, 10, loud), HeardPassage(10, 24.5, Heard()))))
    assert (first.start, first.end, second.start, second.end) == (0, 10, 10, 24.5)
    assert first.captions[0] == "bossa nova, jazz, fast, dark, loud, 128 bpm, A minor, flute"
    assert second.captions[0] == "bossa nova, fast, dark, 128 bpm, A minor"
    assert not any("Sea Storm" in caption for caption in first.captions)
    drums = known.model_copy(update={"instruments": ("drums",)})
    assert passages(drums, Heard(passages=(HeardPassage(0, 10, loud),)))[0].captions[0].endswith("drums"), (
        "what is known goes before"
    )


def test_a_passage_is_called_what_is_measured_there_but_for_what_ten_seconds_cannot_tell() -> None:
    known = Description(styles=("jazz",), moods=("dark", "sparse", "dynamic"))
    textures = (Texture(3000, 7), Texture(1700, 4), Texture(None, 0.5), None)
    heard = Heard(passages=tuple(HeardPassage(10 * n, 10 * n + 10, Heard(), each) for n, each in enumerate(textures)))
    assert [each.captions[0] for each in passages(known, heard)] == [
        "jazz, bright, busy, dynamic",
        "jazz, dynamic",
        "jazz, sparse, dynamic",
        "jazz, dark, sparse, dynamic",
    ]


def test_some_tags_of_a_list_are_said_in_any_order() -> None:
    full = captions(FULL)[0]
    tags = full.split(", ")
    drawn = [some_tags(full, 0.9, np.random.default_rng(seed)).split(", ") for seed in range(60)]
    assert all(set(each) <= set(tags) and len(set(each)) == len(each) for each in drawn), "nothing new, nothing twice"
    assert {len(each) for each in drawn} == set(range(1, len(tags) + 1)), "from one to all"
    assert {tag for each in drawn for tag in each[:1]} == set(tags), "any of them first"
    assert sorted(some_tags(full, 0.0, np.random.default_rng(0)).split(", ")) == sorted(tags)


@pytest.mark.parametrize(
    "caption", ["fast dark bossa nova", "Slow, dark jazz with flute, 60 bpm in A minor.", "one, of five words and more"]
)
def test_what_is_no_list_of_tags_is_said_whole(caption: str) -> None:
    assert some_tags(caption, 0.9, np.random.default_rng(0)) == caption
