import numpy as np
import pytest

from longplay.data.musicnn import Listener, Musicnn
from longplay.evaluate.reconstruction import code_usage, reconstruction_rows


def test_usage_of_even_and_of_stuck_codebooks() -> None:
    even, stuck = np.tile(np.arange(8), 4), np.zeros(32, dtype=np.int64)

    usage = code_usage([np.stack([even, stuck])[:, :20], np.stack([even, stuck])[:, 20:]], 16)

    assert usage["used"] == pytest.approx((8 / 16 + 1 / 16) / 2)
    assert usage["used_least"] == pytest.approx(1 / 16)
    assert usage["perplexity"] == pytest.approx((8 + 1) / 2)


def test_a_perfect_system_is_at_no_distance_and_a_noisy_one_is_not() -> None:
    random = np.random.default_rng(0)
    originals = [(0.1 * random.standard_normal(16000 * 4)).astype(np.float32) for _ in range(3)]
    systems = {"copy": originals, "quiet": [0.1 * wav for wav in originals]}

    copy, quiet = reconstruction_rows(originals, systems, 16000, Listener(Musicnn(), Musicnn()), 75.0)

    assert (copy.system, quiet.system) == ("copy", "quiet")
    assert copy.values["mel"] == 0
    assert copy.values["frechet"] == pytest.approx(0, abs=1e-5)
    assert quiet.values["hum_db"] == pytest.approx(copy.values["hum_db"], abs=1e-3)
    assert quiet.values["mel"] == pytest.approx(1, abs=0.02)
    assert quiet.values["frechet"] > copy.values["frechet"]
