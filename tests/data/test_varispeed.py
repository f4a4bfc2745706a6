import re

import pytest

from longplay.data.captions import Description, captions
from longplay.data.manifest import Measured, Passage, Track
from longplay.data.varispeed import varispeed, with_varispeed
from longplay.errors import ConfigError
from longplay.keys import Key
from longplay.prompt import Section


def track(title: str = "Slow March", bpm: float | None = 100.0, key: str | None = "Bb minor") -> Track:
    sections = (Section(label="intro", start=0, end=10), Section(label="verse", start=10, end=60))
    about = Description(title=title, styles=("march", "folk"), bpm=bpm, key=key, sections=sections)
    return Track(
        id="a", path="a.wav", seconds=60, split="train", kind="real", title=title, source="s", licence="CC0",
        codec_ok=True, captions=captions(about), sections=sections, bpm=bpm, key=key, offset=12,
    )  # fmt: skip


def test_times_tempo_and_key_are_those_of_the_tape_at_another_speed() -> None:
    up = varispeed(track(), 5)
    speed = 2 ** (5 / 12)
    assert (up.id, up.path) == ("a@+5", "a.wav")
    assert (up.speed, up.bpm, up.seconds, up.offset) == pytest.approx((speed, 100 * speed, 60 / speed, 12 / speed))
    assert up.key == "Eb minor"
    assert up.sections[-1].end == pytest.approx(up.seconds)
    measured = Measured(brightness=1000, density=3, loudness=(0,) * 8)
    faster = varispeed(track().model_copy(update={"measured": measured}), 12).measured
    assert faster == Measured(brightness=2000, density=6, loudness=(0,) * 8)
    twice = varispeed(varispeed(track(), 3), -3)
    assert (twice.speed, twice.bpm, twice.key) == (pytest.approx(1), pytest.approx(100), "Bb minor")


def test_captions_say_what_is_heard_then_and_nothing_else_changes() -> None:
    before, after = track(), varispeed(track(), 5)
    assert len(after.captions) == len(before.captions)
    about = Description(
        title="Slow March", styles=("march", "folk"), bpm=after.bpm, key="Eb minor", sections=before.sections
    )
    assert after.captions == captions(about)
    assert any(caption.startswith('"Slow March"') and "fast" in caption for caption in after.captions)
    text = " ".join(after.captions)
    assert set(re.findall(r"(\d+) bpm", text)) == {"133"}
    assert "mid-tempo" not in text


def test_what_is_not_known_stays_unsaid() -> None:
    bare = track(bpm=None, key=None)
    assert varispeed(bare, 2).captions == bare.captions
    assert (varispeed(bare, 2).bpm, varispeed(bare, 2).key) == (None, None)


@pytest.mark.parametrize(
    ("key", "up", "expected"), [("G# major", 1, "A major"), ("C minor", -1, "B minor"), ("Db major", 12, "C# major")]
)
def test_keys_are_transposed_however_they_are_spelt(key: str, up: int, expected: str) -> None:
    assert str(Key.parse(key).transposed(up)) == expected


def test_only_training_tracks_are_played_at_other_speeds() -> None:
    tracks = [track(), track().model_copy(update={"id": "v", "split": "valid"})]
    assert [each.id for each in with_varispeed(tracks, [-3, 2])] == ["a", "v", "a@-3", "a@+2"]
    assert with_varispeed(tracks, []) == tracks
    for wrong in ([0], [7], [2, 2]):
        with pytest.raises(ConfigError, match="different semitones from 1 to 6, up or down"):
            with_varispeed(tracks, wrong)


def test_bars_go_with_the_speed() -> None:
    before = track().model_copy(update={"bars": (0.3, 2.7, 5.1)})
    assert varispeed(before, 5).bars == pytest.approx([time / 2 ** (5 / 12) for time in (0.3, 2.7, 5.1)])


def test_passages_go_with_the_speed() -> None:
    before = track()
    before = before.model_copy(update={"passages": (Passage(start=10, end=60, captions=before.captions[:1]),)})
    (after,) = varispeed(before, 5).passages
    assert (after.start, after.end) == pytest.approx((10 / 2 ** (5 / 12), 60 / 2 ** (5 / 12)))
    assert after.captions == varispeed(track(), 5).captions[:1]
