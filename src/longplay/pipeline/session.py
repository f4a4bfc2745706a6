"""Many pieces at once: they join and leave one running batch of the lm, and share windows of flow and decoder.

```
orders ─> Runner: rounds of codes ─> WindowBatch: latents ─> WindowBatch: sound ─> a queue for each piece
```

What one piece is does not depend on the others: on a CPU bit for bit, where the lm computes as `exact_together` says (the
windows go one by one there, for a batch of them is no faster); elsewhere as far as sums of other shapes round alike.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor

from longplay.audio.file import Wav
from longplay.checkpoint.system import System
from longplay.engine.batching import Runner
from longplay.engine.flow_windows import run_flow
from longplay.engine.piece import Piece
from longplay.engine.vocode import windows_of
from longplay.engine.window_batch import Part, WindowBatch
from longplay.engine.windows import Window
from longplay.errors import AudioError, LongplayError, PromptError
from longplay.models.lm import LM
from longplay.pipeline.continuation import Heard
from longplay.pipeline.overlap import Cores, Share, Unwanted, overlapped, patiently
from longplay.pipeline.steps import AHEAD_CODES, AHEAD_WINDOWS, Steps, as_wav
from longplay.pipeline.stream import Meter, Stage
from longplay.prompt import Prompt

PREFIX_POSITIONS = 512
"""Of a row, for text and sections."""
WINDOWS_AT_ONCE = 16
PATIENCE = 5
"""Rounds of the lm, a second of music, for which a window waits for others: on an accelerator, which does many at once."""


class SessionClosed(LongplayError):
    """The session was closed before the piece was finished."""


class Making(NamedTuple):
    """A piece that is being made: its sound [1, S] as it comes, and how to give it up."""

    chunks: Generator[Wav, None, None]
    cancel: Callable[[], None]


@dataclass(frozen=True)
class _End:
    error: BaseException | None


@dataclass(eq=False)
class _Request:
    steps: Steps
    piece: Piece
    owner: str
    sound: "queue.SimpleQueue[Wav | _End]" = field(default_factory=queue.SimpleQueue)
    cancelled: bool = False
    meters: dict[Stage, Meter] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return str(id(self))

    @property
    def skip(self) -> float:
        """Seconds at the start that were heard, not made."""
        return len(self.piece.prompt) / self.steps.lm.config.code_rate


class Session:
    """A system at work on many pieces; a context manager. `Pipeline.stream(..., session=...)` adds one from any thread."""

    def __init__(
        self, system: System, lm: LM, slots: int, seconds: float, guided: bool = True, cache: str | None = None
    ) -> None:
        """Reserve the memory of all slots and begin to wait for pieces.

        Args:
            system: the models.
            lm: its lm.
            slots: pieces that run at once; the others wait, and each owner has its turn.
            seconds: of the longest piece, with what is heard of a recording before it.
            guided: whether pieces may have guidance other than 1, which takes twice the memory.
            cache: dtype of keys and values, as of `GenerationOptions.cache`.
        """
        self._seconds, self._guided, self._cache = seconds, guided, cache
        frames = round(seconds * lm.config.code_rate)
        context = lm.config.context_frames
        positions = PREFIX_POSITIONS + (frames if context is None else min(frames, context))
        self._runner = Runner(lm, slots, positions, guided, None if cache is None else getattr(torch, cache))
        self._device = system.device
        self._threads = torch.get_num_threads()
        self._orders: queue.SimpleQueue[Callable[[], list[Part[_Request]]] | None] = queue.SimpleQueue()
        self._requests: dict[str, _Request] = {}
        self._lock = threading.Lock()
        self._closed: _End | None = None
        self._thread = threading.Thread(target=self._work, name="longplay-session", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop; pieces that are not finished end with `SessionClosed`."""
        self._orders.put(None)
        self._thread.join()

    def make(self, steps: Steps, prompt: Prompt, heard: Heard | None = None, owner: str = "") -> Making:
        """Add a piece.

        Args:
            steps: with the options of the piece.
            prompt: what is asked for.
            heard: the end of a recording to go on from.
            owner: whom to be fair to, when more pieces wait than can run.

        Raises:
            PromptError: the piece needs more than the session has.
        """
        options = steps.options
        if options.cache != self._cache:
            raise PromptError(f"cache {options.cache!r}: this session has {self._cache!r}; all of its pieces share it")
        if options.guidance != 1.0 and not self._guided:
            raise PromptError(f"guidance {options.guidance:g}: this session was made for pieces without (guidance 1)")
        piece = steps.piece(prompt, heard)
        if not self._runner.holds(piece, options):
            raise PromptError(
                f"a piece of {options.seconds + (heard.seconds if heard else 0.0):g} s, {len(piece.ids)} tokens of text and "
                f"{len(piece.sections)} sections does not fit: this session was made for {self._seconds:g} s and "
                f"{PREFIX_POSITIONS} tokens; ask for less, or make one with more seconds"
            )
        request = _Request(steps, piece, owner)
        with self._lock:
            if self._closed is not None:
                raise SessionClosed("the session is closed") from self._closed.error
            self._requests[request.key] = request
        self._orders.put(lambda: self._submit(request))
        return Making(self._sound_of(request), lambda: self._give_up(request))

    def _sound_of(self, request: _Request) -> Generator[Wav, None, None]:
        try:
            while not isinstance(item := patiently(request.sound.get), _End):
                yield item
            if item.error is not None:
                raise item.error
        finally:
            self._give_up(request)

    def _give_up(self, request: _Request) -> None:
        with self._lock:
            unfinished = self._requests.pop(request.key, None) is not None
        if unfinished:
            request.cancelled = True
            self._orders.put(lambda: self._cancel(request))

    # What follows runs in threads of its own: the lm's, the flow's, the decoder's, and one that deals out.

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        error: BaseException | None = None
        try:
            with closing(self._made()) as made:
                for parts in made:
                    for part in parts:
                        self._deliver(part)
        except Unwanted:
            pass
        except BaseException as found:  # whatever it is, it belongs to those who wait for their pieces
            error = found
        with self._lock:
            self._closed = _End(error)
            left = list(self._requests.values())
            self._requests.clear()
        for request in left:
            request.sound.put(_End(error or SessionClosed("the session was closed before the piece was finished")))

    def _made(self) -> Generator[list[Part[_Request]], None, None]:
        rounds = self._rounds()
        if self._device.type != "cpu":
            return self._decoded(self._latents(rounds))
        share, cores = Share.of(self._threads), Cores(self._threads)
        rounds = overlapped(rounds, share.lm, AHEAD_CODES, cores)
        latents = overlapped(self._latents(rounds), share.flow, AHEAD_WINDOWS, cores)
        return overlapped(self._decoded(latents), share.decoder, AHEAD_WINDOWS, cores)

    def _submit(self, request: _Request) -> list[Part[_Request]]:
        if request.cancelled:
            return []
        self._runner.submit(request.key, request.piece, request.steps.options, request.owner)
        prompt = request.piece.prompt
        return [Part(request, prompt[None], ended=False)] if len(prompt) else []

    def _cancel(self, request: _Request) -> list[Part[_Request]]:
        self._runner.cancel(request.key)
        return [Part(request, None, ended=True)]

    def _rounds(self) -> Iterator[list[Part[_Request]]]:
        """Codes [1, T] of all pieces, round by round, until the session is closed."""
        while True:
            parts: list[Part[_Request]] = []
            while self._runner.idle or not self._orders.empty():
                if self._runner.idle:
                    yield parts  # these go on now: nothing else may come for long
                    parts = []
                order = patiently(self._orders.get)
                if order is None:
                    return
                parts += order()
            for made in self._runner.round():
                request = self._requests.get(made.key)
                if request is not None:
                    parts.append(Part(request, made.codes[None].to(self._device), made.finished))
                    _tell(parts[-1], "lm", request.steps.lm.config.code_rate)
            yield parts

    def _latents(self, rounds: Iterator[list[Part[_Request]]]) -> Generator[list[Part[_Request]], None, None]:
        windows = WindowBatch[_Request](_run_flow, *_sharing(self._device))
        for parts in rounds:
            as_they_are = []
            for part in parts:
                request = part.piece
                if request.cancelled or request.steps.options.fast:
                    windows.drop(request)
                    as_they_are.append(part)
                    continue
                if request not in windows:
                    row = request.steps.flow_row(request.piece)
                    windows.begin(
                        request, request.steps.flow_stream(), (request.steps.flow_settings, row.chords is None)
                    )
                windows.take(part)
            if as_they_are:
                yield as_they_are
            for made in windows.run_ready():
                for part in made:
                    _tell(part, "flow", part.piece.steps.flow.config.frame_rate)
                yield made

    def _decoded(self, latents: Iterator[list[Part[_Request]]]) -> Generator[list[Part[_Request]], None, None]:
        windows = WindowBatch[_Request](_run_decoder, *_sharing(self._device))
        for parts in latents:
            for part in parts:
                request = part.piece
                if request.cancelled:
                    windows.drop(request)
                    continue
                if request not in windows:
                    windows.begin(request, request.steps.decode_stream(), request.steps.options.fast)
                windows.take(part)
            for made in windows.run_ready():
                for part in made:
                    steps = part.piece.steps
                    _tell(part, "tokenizer" if steps.options.fast else "codec", steps.sample_rate)
                yield made

    def _deliver(self, part: Part[_Request]) -> None:
        request = part.piece
        try:
            if part.frames is not None and part.frames.shape[-1]:
                request.sound.put(as_wav(part.frames))
        except AudioError as error:
            self._give_up(request)
            request.sound.put(_End(error))
            return
        if part.ended:
            with self._lock:  # from here on it is not to be given up
                self._requests.pop(request.key, None)
            request.sound.put(_End(None))


def _sharing(device: torch.device) -> tuple[int, int]:
    """How many windows are run together, and for how many rounds one waits for others."""
    return (1, 0) if device.type == "cpu" else (WINDOWS_AT_ONCE, PATIENCE)


def _run_flow(requests: Sequence[_Request], windows: Sequence[Window]) -> Tensor:
    steps = requests[0].steps
    rows = [request.steps.flow_row(request.piece) for request in requests]
    codes = torch.cat([window.frames for window in windows])
    return run_flow(steps.flow, rows, codes, [window.first for window in windows], steps.flow_settings)


def _run_decoder(requests: Sequence[_Request], windows: Sequence[Window]) -> Tensor:
    return windows_of(requests[0].steps.decoder)(torch.cat([window.frames for window in windows]))


def _tell(part: Part[_Request], stage: Stage, rate: float) -> None:
    """Let `progress` hear how many seconds of a piece a stage has made so far."""
    request = part.piece
    if part.frames is not None:
        if stage not in request.meters:
            skip = 0.0 if stage == "lm" else request.skip
            request.meters[stage] = Meter(request.steps.progress, stage, rate, skip)
        request.meters[stage].count(part.frames.shape[-1])
