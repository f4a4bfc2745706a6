"""One worker's part of making tokens: load the models once, then audio in, codes out."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf
import soxr
import torch

from longplay.audio.clip import to_mono
from longplay.checkpoint.system import System, load_system
from longplay.data.cluster import find_ray, run_on_ray
from longplay.data.storage import open_folder
from longplay.data.workers import Outcome, run_jobs
from longplay.engine.encode import encode
from longplay.errors import AudioError, CheckpointError
from longplay.models.codec import Codec
from longplay.models.tokenizer import Tokenizer

LENGTH_TOLERANCE = 0.2  # seconds: what encoders pad is cut off by one decoder and not by another


class Job(NamedTuple):
    """One track to encode: its id, the folder or address of its manifest, and what the manifest says of it.

    `seconds` are those of the track when it is played at `speed`, as in `Track`.
    """

    utt: str
    folder: str
    path: str
    seconds: float
    speed: float = 1.0


class Codes(NamedTuple):
    """Codes of one track: `semantic` [1, T], `acoustic` [K, T'], K = 0 without a codec; int16. `seconds` of its audio."""

    semantic: np.ndarray
    acoustic: np.ndarray
    seconds: float


class Encoder:
    """Tokenizer and, unless only the language model is to be trained, codec.

    Args:
        tokenizer, codec: models in memory.
    """

    def __init__(self, tokenizer: Tokenizer, codec: Codec | None) -> None:
        self.tokenizer, self.codec = tokenizer, codec

    @classmethod
    def load(cls, tokenizer: str, codec: str | None, device: str = "cpu", threads: int | None = None) -> "Encoder":
        """From model names or directories; computes on `threads` CPU threads.

        Raises:
            CheckpointError: a model is not there or has no tokenizer of one codebook, or no codec.
        """
        if threads:
            torch.set_num_threads(threads)
        semantic = load_tokenizer(tokenizer, device)
        acoustic = None if codec is None else load_system(codec, device)
        if acoustic is not None and acoustic.codec is None:
            raise CheckpointError(f"{codec}: has no codec to encode with, only {', '.join(acoustic.config.present)}")
        return cls(semantic, None if acoustic is None else acoustic.codec)

    def __call__(self, job: Job) -> Codes:
        """Encode one track.

        Raises:
            AudioError: its file is missing or damaged, or not as long as its manifest says.
        """
        with ExitStack() as stack:
            file = stack.enter_context(open_folder(job.folder).open(job.path))
            whole = io.BytesIO(file.read())  # libsndfile would take a store that fails for the end of the file
            try:
                samples, rate = sf.read(whole, dtype="float32", always_2d=True)
            except sf.LibsndfileError as error:
                raise AudioError(f"{job.path}: cannot be decoded ({error}); build the corpus again") from None
        found, told = len(samples) / rate, job.seconds * job.speed
        if abs(found - told) > LENGTH_TOLERANCE:
            raise AudioError(f"{job.path}: lasts {found:.1f} s, its manifest says {told:.1f} s; build the corpus again")
        mono, rate = to_mono(samples.T), rate * job.speed
        semantic = _codes(mono, rate, self.tokenizer)
        acoustic = np.zeros((0, 0), np.int16) if self.codec is None else _codes(mono, rate, self.codec)
        return Codes(semantic, acoustic, len(mono) / rate)


def load_tokenizer(name: str | Path, device: str = "cpu") -> Tokenizer:
    """The tokenizer of a model, for the stages lm and flow, which take one code a frame.

    Raises:
        CheckpointError: the model is not there, or has no tokenizer of one codebook.
    """
    return tokenizer_of(load_system(name, device), name)


def tokenizer_of(system: System, name: str | Path) -> Tokenizer:
    """The tokenizer of an open model, which messages call `name`.

    Raises:
        CheckpointError: it has no tokenizer of one codebook.
    """
    if system.tokenizer is None:
        raise CheckpointError(
            f"{name}: has no tokenizer, only {', '.join(system.config.present)}; give the model directory of a tokenizer run"
        )
    if (books := system.tokenizer.config.num_codebooks) > 1:
        raise CheckpointError(
            f"{name}: its tokenizer has {books} codebooks, and lm and flow take one code a frame; "
            "give one with num_codebooks 1"
        )
    return system.tokenizer


@torch.inference_mode()
def _codes(mono: np.ndarray, rate: float, model: Tokenizer | Codec) -> np.ndarray:
    """Codes [K, T] of a whole track; K is 1 for the tokenizer."""
    target = model.config.sample_rate
    wav = soxr.resample(mono, rate, target, quality="HQ") if rate != target else mono
    device = next(model.parameters()).device
    codes = encode(model, torch.from_numpy(wav).view(1, 1, -1).to(device))[0]
    return torch.atleast_2d(codes).to(torch.int16).cpu().numpy()


_loaded: Encoder | None = None  # one for each worker process


def _load(tokenizer: str, codec: str | None, device: str, threads: int | None) -> None:
    global _loaded
    _loaded = Encoder.load(tokenizer, codec, device, threads)


def _encode(job: Job) -> Codes:
    assert _loaded is not None
    return _loaded(job)


def encode_in_processes(
    tokenizer: str, codec: str | None, workers: int, device: str = "cpu", threads: int | None = None
) -> Callable[[Sequence[Job]], Iterator[Outcome[Job, Codes]]]:
    """An `encode_all` of `prepare_tokens` that works in processes of this machine, a model in each."""
    return lambda jobs: run_jobs(_encode, jobs, workers, _load, (tokenizer, codec, device, threads))


def encode_on_ray(
    tokenizer: str, codec: str | None, workers: int, device: str = "cpu", threads: int | None = None
) -> Callable[[Sequence[Job]], Iterator[Outcome[Job, Codes]]]:
    """An `encode_all` of `prepare_tokens` that works in actors on a Ray cluster, a model in each.

    Raises:
        UserError: Ray is not installed.
    """
    find_ray()
    gpus = 1 if device.startswith("cuda") else 0
    return lambda jobs: run_on_ray(_encode, jobs, workers, _load, (tokenizer, codec, device, threads), gpus)


def encode_here(encoder: Encoder) -> Callable[[Sequence[Job]], Iterator[Outcome[Job, Codes]]]:
    """An `encode_all` of `prepare_tokens` that works in this process."""

    def encode_all(jobs: Sequence[Job]) -> Iterator[Outcome[Job, Codes]]:
        for job in jobs:
            try:
                yield Outcome(job, encoder(job), None)
            except AudioError as error:
                yield Outcome(job, None, error)

    return encode_all
