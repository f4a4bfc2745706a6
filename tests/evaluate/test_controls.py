import numpy as np
import pytest

from longplay.evaluate.controls import add_noise, shuffle_chunks, white_noise


def test_shuffling_keeps_every_sample_and_breaks_the_order() -> None:
    wav = np.arange(1050, dtype=np.float32)

    shuffled = shuffle_chunks(wav, 1000, np.random.default_rng(0))

    assert sorted(shuffled) == list(wav)
    assert not np.array_equal(shuffled, wav)
    assert np.array_equal(shuffled[1000:], wav[1000:])
    assert all(np.array_equal(np.diff(chunk), np.ones(99)) for chunk in shuffled[:1000].reshape(10, 100))


def test_noise_is_as_loud_as_the_clip() -> None:
    wav = 0.2 * np.sin(np.arange(50000, dtype=np.float32))

    assert white_noise(wav, np.random.default_rng(0)).std() == pytest.approx(wav.std(), rel=0.02)


def test_added_noise_has_the_asked_level() -> None:
    wav = 0.2 * np.sin(np.arange(50000, dtype=np.float32))
    noise = add_noise(wav, 20, np.random.default_rng(0)) - wav

    assert 20 * np.log10(wav.std() / noise.std()) == pytest.approx(20, abs=0.2)
