"""Many pieces at once: each is what it is alone; they come, go, fail and are given up without disturbing the others."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from longplay import Audio, GenerationOptions, Pipeline, Prompt
from longplay.audio.file import Wav
from longplay.errors import AudioError, PromptError
from longplay.models.codec import Codec
from longplay.pipeline import Session, SessionClosed, Stream
from longplay.pipeline import session as module
from recordings import chord


@pytest.fixture
def session(pipeline: Pipeline) -> Iterator[Session]:
    with pipeline.session(slots=3, seconds=8.0) as session:
        yield session
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("longplay-")]


def whole(stream: Stream) -> Wav:
    return np.concatenate(list(stream), axis=1)


def test_each_piece_is_what_it_is_alone(pipeline: Pipeline, session: Session) -> None:
    recording = chord(3.1, 44_100, 2)
    asked = [
        (Prompt(text="calm"), GenerationOptions(seconds=2.0, seed=1, num_steps=1), None),
        (Prompt(text="loud"), GenerationOptions(seconds=0.7, seed=2, num_steps=2), None),
        (Prompt(text="fast"), GenerationOptions(seconds=1.5, seed=3, fast=True), None),
        (Prompt(text="on"), GenerationOptions(seconds=1.0, seed=4, num_steps=1, prompt_seconds=2.0), recording),
        (Prompt(text="plain"), GenerationOptions(seconds=1.0, seed=5, num_steps=1, guidance=1.0), None),
    ]
    streams = [pipeline.stream(*each, session=session) for each in asked]
    made = [whole(stream) for stream in streams]
    for each, stream, wav in zip(asked, streams, made, strict=True):
        alone = pipeline.stream(*each)
        assert np.array_equal(wav, whole(alone)), each
        assert stream.recipe == alone.recipe
        assert stream.sample_rate == alone.sample_rate


def test_progress_is_each_piece_s_own(pipeline: Pipeline, session: Session) -> None:
    heard: dict[int, dict[str, float]] = {1: {}, 2: {}}
    streams = [
        pipeline.stream(
            "x",
            GenerationOptions(seconds=seconds, seed=1, num_steps=1),
            progress=lambda stage, made, own=heard[seconds]: own.update({stage: made}),  # type: ignore[misc]
            session=session,
        )
        for seconds in heard
    ]
    for stream in streams:
        whole(stream)
    assert heard == {seconds: dict.fromkeys(("lm", "flow", "codec"), seconds) for seconds in heard}


def test_windows_of_one_shape_share_a_batch_where_that_is_faster(
    pipeline: Pipeline, options: GenerationOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    run_flow = module._run_flow
    monkeypatch.setattr(
        module, "_run_flow", lambda requests, *given: (sizes.append(len(requests)), run_flow(requests, *given))[1]
    )
    monkeypatch.setattr(module, "_sharing", lambda device: (2, 3))
    all_asked, round_ = threading.Event(), module.Runner.round
    monkeypatch.setattr(module.Runner, "round", lambda self: (all_asked.wait(), round_(self))[1])
    with pipeline.session(slots=3, seconds=8.0) as session:
        streams = [
            pipeline.stream("x", options.model_copy(update={"seed": seed}), session=session) for seed in range(3)
        ]
        all_asked.set()
        made = [whole(stream) for stream in streams]
    assert max(sizes) == 2
    for seed, wav in enumerate(made):
        alone = whole(pipeline.stream("x", options.model_copy(update={"seed": seed})))
        np.testing.assert_allclose(wav, alone, atol=1e-4)


def test_a_piece_that_is_given_up_lets_the_next_one_in(pipeline: Pipeline, options: GenerationOptions) -> None:
    with pipeline.session(slots=1, seconds=60.0) as session:
        long = pipeline.stream("x", GenerationOptions(seconds=60.0, seed=1, num_steps=1), session=session)
        waits = pipeline.stream("x", GenerationOptions(seconds=60.0, seed=2, num_steps=1), session=session)
        after = pipeline.stream("x", options, session=session)
        next(iter(long))
        waits.close()  # never begun
        long.close()
        assert np.array_equal(whole(after), whole(pipeline.stream("x", options)))
        assert list(long) == []


def test_one_piece_s_error_is_its_own(
    pipeline: Pipeline, session: Session, options: GenerationOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Codec.decode_frames
    monkeypatch.setattr(
        Codec,
        "decode_frames",
        lambda self, latents: decode(self, latents) * (torch.nan if latents.shape[-1] > 240 else 1),
    )
    broken = pipeline.stream("x", options.model_copy(update={"seconds": 8.0}), session=session)
    good = pipeline.stream("x", options.model_copy(update={"seconds": 1.0}), session=session)
    with pytest.raises(AudioError, match="NaN"):
        whole(broken)
    assert whole(good).shape == (1, 48_000)


def test_a_failure_of_the_models_reaches_everybody(
    pipeline: Pipeline, options: GenerationOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "_run_flow", fail)
    with pipeline.session(slots=2, seconds=8.0) as session:
        streams = [pipeline.stream("x", options, session=session) for _ in range(3)]
        for stream in streams:
            with pytest.raises(RuntimeError, match="out of memory"):
                whole(stream)
        with pytest.raises(SessionClosed):
            pipeline.stream("x", options, session=session)


def test_closing_ends_what_is_not_finished(pipeline: Pipeline) -> None:
    with pipeline.session(slots=1, seconds=60.0) as session:
        streams = [
            pipeline.stream("x", GenerationOptions(seconds=60.0, seed=seed, num_steps=1), session=session)
            for seed in range(2)
        ]
        next(iter(streams[0]))
    for stream in streams:
        with pytest.raises(SessionClosed, match="before the piece was finished"):
            whole(stream)


def test_what_does_not_fit_is_refused(pipeline: Pipeline, session: Session, options: GenerationOptions) -> None:
    with pytest.raises(PromptError, match="a piece of 99 s, .* does not fit: this session was made for 8 s"):
        pipeline.stream("x", options.model_copy(update={"seconds": 99.0}), session=session)
    with pytest.raises(PromptError, match=r"cache 'int8': this session has None"):
        pipeline.stream("x", options.model_copy(update={"cache": "int8"}), session=session)
    with (
        pipeline.session(slots=1, seconds=8.0, guided=False) as plain,
        pytest.raises(PromptError, match=r"guidance 3: this session was made for pieces without"),
    ):
        pipeline.stream("x", options, session=plain)
    assert isinstance(pipeline.generate("x", options), Audio)
