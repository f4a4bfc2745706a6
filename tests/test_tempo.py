import numpy as np
import pytest

from longplay.tempo import WORDS, named_bpm, tempo_word, usual_bpm


@pytest.mark.parametrize(("bpm", "word"), [(60, "slow"), (100, "mid-tempo"), (128, "fast"), (170, "very fast")])
def test_tempo_words(bpm: float, word: str) -> None:
    assert tempo_word(bpm) == word
    assert WORDS.fullmatch(word)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("a piece for strings", 60, 180),
        ("Slow techno", 60, 80),
        ("very fast polka", 150, 180),
        ("techno", 122, 140),
        ("drum'n'bass, dark", 168, 178),
        ("a sad lo-fi song", 76, 105),
        ("calm piano", 60, 96),
        ("warehouse music", 60, 180),
    ],
)
def test_a_usual_tempo_is_within_what_the_words_allow(text: str, low: float, high: float) -> None:
    drawn = [usual_bpm(text, seed) for seed in range(200)]
    assert all(bpm is not None and low <= bpm <= high for bpm in drawn)
    assert len(set(drawn)) > (high - low) / 4, "seeds differ"
    assert drawn[:3] == [usual_bpm(text, seed) for seed in range(3)]


def test_tempi_are_distributed_as_in_music() -> None:
    drawn = np.log([usual_bpm("a piece", seed) or 0 for seed in range(2000)])
    assert np.exp(np.median(drawn)) == pytest.approx(115, rel=0.03)
    assert drawn.std() == pytest.approx(0.23, rel=0.15)


@pytest.mark.parametrize("text", ["dark ambient", "A drone", "piano, free time", "strings without a beat", "no beat"])
def test_music_without_a_pulse(text: str) -> None:
    assert usual_bpm(text, 0) is None


def test_a_named_tempo() -> None:
    assert named_bpm("techno, 127.5 BPM") == 127.5
    assert named_bpm("techno") is None
