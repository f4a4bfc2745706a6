"""Rates that are no whole numbers: 44.1 kHz in hops of 256 and 512."""

import numpy as np
import pytest

from longplay import GenerationOptions, Pipeline
from longplay.checkpoint.store import SystemConfig, load_config, save_native
from longplay.errors import ConfigError
from recordings import chord
from systems import tiny_config, tiny_text_tokenizer, tiny_weights

CODES, FRAMES = 22050 / 256, 44100 / 256


def uneven(**flow: float) -> SystemConfig:
    data = tiny_config().dump()
    data["tokenizer"] |= {"sample_rate": 22050, "hop_length": 256}
    data["codec"] |= {"sample_rate": 44100, "hop_length": 256}
    data["lm"]["code_rate"] = CODES
    data["flow"] |= {"code_rate": CODES, "frame_rate": FRAMES} | flow
    return SystemConfig.parse(data)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    directory = tmp_path_factory.mktemp("uneven")
    save_native(directory, uneven(), tiny_weights(), tiny_text_tokenizer().to_json().encode())
    assert load_config(directory).lm == uneven().lm
    return Pipeline.load(directory, device="cpu")


@pytest.mark.parametrize(("fast", "rate"), [(False, 44100), (True, 22050)])
def test_a_piece_has_the_asked_length_and_streams_as_it_is(pipeline: Pipeline, fast: bool, rate: int) -> None:
    options = GenerationOptions(seconds=3.0, seed=1, num_steps=1, fast=fast)
    whole = pipeline.generate("calm piano", options)
    assert whole.sample_rate == rate
    assert whole.seconds == pytest.approx(3.0, abs=1 / CODES)
    assert np.array_equal(np.concatenate(list(pipeline.stream("calm piano", options)), axis=1), whole.wav)


def test_a_recording_goes_on_where_it_ends(pipeline: Pipeline) -> None:
    options = GenerationOptions(seconds=1.0, seed=1, num_steps=1)
    made = pipeline.continue_(chord(2.0, 44100), "calm piano", options)
    assert made.seconds == pytest.approx(3.0, abs=2 / CODES)


def test_rates_are_written_as_they_are() -> None:
    written = uneven().dump()
    assert (written["lm"]["code_rate"], written["flow"]["frame_rate"]) == (86.1328125, 172.265625)
    assert repr(tiny_config().dump()["flow"]["frame_rate"]) == "150"


def test_rates_that_do_not_fit_are_named() -> None:
    with pytest.raises(ConfigError, match="frame_rate 100 must be a multiple of code_rate 86.1328125"):
        uneven(frame_rate=100)
    with pytest.raises(ConfigError, match="flow.code_rate 75 differs from the tokenizer's frame rate 86.1328125"):
        uneven(code_rate=75, frame_rate=150)
