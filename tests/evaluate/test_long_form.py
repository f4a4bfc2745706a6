import numpy as np
import pytest
import torch

from longplay.data.musicnn import Listener, Musicnn
from longplay.evaluate.long_form import Sounds, bands, cut, flatness, long_form_rows, loops

RATE = 16000
Wav = np.ndarray


class BandJudge(Musicnn):
    """Hears means and deviations of the bands."""

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedding = torch.cat([patches.mean(1), patches.std(1)], dim=1)
        return torch.sigmoid(embedding[:, :50]), embedding


def melody(seconds: float, seed: int) -> Wav:
    """A new note every quarter of a second."""
    random = np.random.default_rng(seed)
    notes = [220 * 2 ** (random.integers(0, 36) / 12) for _ in range(int(4 * seconds))]
    t = np.arange(RATE // 4) / RATE
    return np.concatenate([0.3 * np.sin(2 * np.pi * hz * t) * np.exp(-6 * t) for hz in notes]).astype(np.float32)


def noise(seconds: float, seed: int) -> Wav:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE)).astype(np.float32)


def test_a_piece_is_cut_into_stretches_and_a_short_rest_dropped() -> None:
    assert [len(part) for part in cut(noise(25, 0), RATE, 10)] == [10 * RATE, 10 * RATE, 5 * RATE]
    assert [len(part) for part in cut(noise(24, 0), RATE, 10)] == [10 * RATE, 10 * RATE]


def test_what_repeats_is_a_loop_and_a_melody_is_none() -> None:
    new, again = melody(12, 1), np.tile(melody(3, 2), 4)
    assert loops(bands(new, RATE)) == 0
    assert loops(bands(again, RATE)) == pytest.approx(9 / 11, abs=0.15), "all but the first three of twelve seconds"
    half = np.concatenate((melody(6, 3), np.tile(melody(2, 4), 3)))
    assert 0.2 < loops(bands(half, RATE)) < 0.5


def test_a_steady_tone_and_silence_are_no_loops() -> None:
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(10 * RATE) / RATE).astype(np.float32)
    assert loops(bands(tone, RATE)) == 0
    assert loops(bands(np.zeros(10 * RATE, np.float32), RATE)) == 0


def test_noise_is_flat_and_a_melody_is_not() -> None:
    assert flatness(bands(noise(5, 0), RATE)) > -4
    assert flatness(bands(melody(5, 0), RATE)) < -10


def test_a_piece_that_turns_to_noise_is_found_out() -> None:
    listener = Listener(BandJudge(), BandJudge())
    pieces = [np.concatenate((melody(6, seed), noise(6, seed))) for seed in range(3)]
    reference = listener.embed([melody(6, 10 + seed) for seed in range(4)], RATE)
    real = Sounds([melody(6, 20 + seed) for seed in range(3)], RATE)
    rows, facts = long_form_rows(Sounds(pieces, RATE), real, reference, listener, 6.0)
    assert [row.system for row in rows] == ["from 0 s", "from 6 s", "real"]
    assert rows[1].values["flatness_db"] > rows[0].values["flatness_db"] + 5
    assert facts["last_to_first"] == pytest.approx(rows[1].values["frechet"] / rows[0].values["frechet"])
    assert facts["last_to_first"] > 1.5
    with pytest.raises(ValueError, match="use at least two"):
        long_form_rows(real, real, reference, listener, 6.0)
