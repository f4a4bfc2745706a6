"""Seeds compared by what their pieces begin with."""

import numpy as np
import pytest

from longplay.analysis.measure import measure
from longplay.data.musicnn import Listener, Musicnn
from longplay.errors import PromptError
from longplay.evaluate.candidates import Asked, Candidate, check_comparable, find_candidates
from longplay.pipeline import Pipeline
from longplay.prompt import GenerationOptions, Prompt
from systems import tiny_system

PROMPT = Prompt(text="solo piano and strings, 120 bpm, A minor")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    system = tiny_system(tmp_path_factory.mktemp("model") / "tiny")
    assert system.lm is not None
    return Pipeline(system, "tiny", "float32")


@pytest.fixture(scope="module")
def listener() -> Listener:
    """Untrained: what it hears differs from sound to sound, and that is all."""
    return Listener(Musicnn(), Musicnn())


def test_a_prompt_is_read_for_what_can_be_heard() -> None:
    asked = Asked.of(Prompt(text="Slow JAZZ with guitars, 92.5 BPM, Eb major, for a pianola"))
    assert (asked.bpm, asked.key) == (92.5, "Eb major")
    assert set(asked.words) >= {"jazz", "guitar"}
    assert "piano" not in asked.words
    assert not Asked.of(Prompt(text="something nice"))
    with pytest.raises(PromptError, match="'something nice': candidates are compared by tempo"):
        check_comparable(Prompt(text="something nice"))


def test_what_is_met_counts_before_how_it_sounds() -> None:
    both = Candidate(2, -3.0, 1, 120.0, "A minor")
    one = Candidate(1, 9.0, 2, 120.0, None)
    softer = Candidate(1, 8.0, 3, None, "A minor")
    assert sorted([one, softer, both], reverse=True) == [both, one, softer]
    assert str(one) == "seed 2: 120 bpm, no clear key"


@pytest.mark.parametrize("fast", [True, False])
def test_a_sketch_is_how_the_piece_begins(pipeline: Pipeline, fast: bool) -> None:
    options = GenerationOptions(seconds=4.0, fast=fast, seed=8, num_steps=1)
    whole = pipeline.generate(PROMPT, options)
    sketches = pipeline.sketch(PROMPT, [7, 8, 9], options, seconds=2.0)
    assert [sketch.sample_rate for sketch in sketches] == [whole.sample_rate] * 3
    length = sketches[1].wav.shape[1]
    assert length == 2 * whole.sample_rate
    settled = length // 4  # the last windows of a sketch do not know what follows
    np.testing.assert_allclose(sketches[1].wav[:, :settled], whole.wav[:, :settled], atol=1e-5)
    assert not np.allclose(sketches[0].wav[:, :settled], whole.wav[:, :settled], atol=1e-3)


def test_the_seeds_are_ranked_by_measurement(pipeline: Pipeline, listener: Listener) -> None:
    options = GenerationOptions(seconds=5.0, seed=3, num_steps=1).settle(PROMPT)
    found = find_candidates(pipeline, PROMPT, options, 4, listener)
    assert sorted(candidate.seed for candidate in found) == [3, 4, 5, 6]
    assert found == sorted(found, reverse=True)
    assert len({candidate.likeness for candidate in found}) == 4
    best = pipeline.sketch(PROMPT, [found[0].seed], options)[0]
    facts = measure(best.wav[0], best.sample_rate)
    assert (facts.bpm, facts.key) == (found[0].bpm, found[0].key)
    assert found == find_candidates(pipeline, PROMPT, options, 4, listener)


def test_without_words_nobody_listens(pipeline: Pipeline) -> None:
    prompt = Prompt(text="a thing in C major")
    found = find_candidates(pipeline, prompt, GenerationOptions(seconds=5.0, seed=3).settle(prompt), 2)
    assert {candidate.likeness for candidate in found} == {0.0}


def test_pieces_that_are_too_short_or_may_end_early_are_refused(pipeline: Pipeline) -> None:
    early = GenerationOptions(seconds=5.0, seed=3, compatibility="reference").settle(PROMPT)
    with pytest.raises(PromptError, match="compatibility = reference: its pieces may end at once"):
        find_candidates(pipeline, PROMPT, early, 2)
    options = GenerationOptions(seconds=2.0, seed=3).settle(PROMPT)
    with pytest.raises(PromptError, match="seconds = 2: candidates are compared over 4 s or more"):
        find_candidates(pipeline, PROMPT, options, 2)
