import re

import pytest

from longplay.analysis.measure import Facts
from longplay.data.captions import Description, captions, moods
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
    ordinary = Facts(seconds=60, brightness=1700, density=4, dynamics=7, bars=(), chords=())
    assert moods(ordinary) == ()
    extreme = Facts(seconds=60, brightness=900, density=7, dynamics=15, bars=(), chords=())
    assert moods(extreme) == ("dark", "busy", "dynamic")
