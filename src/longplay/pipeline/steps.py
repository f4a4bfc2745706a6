"""The steps of the figure as streams of tensors, in windows, each telling how far it is.

Which windows run depends on the length alone, not on how the frames arrive: a stream and a whole piece are the same.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from longplay.audio import Audio
from longplay.audio.file import Wav
from longplay.audio.resample import fit
from longplay.checkpoint.system import System
from longplay.control import Control
from longplay.engine.batch import NO_CODE
from longplay.engine.decode import generate
from longplay.engine.encode import encode
from longplay.engine.flow_windows import FlowRow, FlowSettings, flow_plan, flow_window
from longplay.engine.piece import REFERENCE_PROMPT_SECONDS, Piece
from longplay.engine.vocode import DecodeStream, decode_plan, stream_decode
from longplay.engine.windows import WindowStream, run_stream
from longplay.errors import AudioError, CheckpointError
from longplay.models.codec import Codec
from longplay.models.flow import Flow
from longplay.models.lm import LM
from longplay.models.tokenizer import Tokenizer
from longplay.pipeline.arrangement import arrange, carry_on
from longplay.pipeline.continuation import Heard, find_control
from longplay.pipeline.overlap import Cores, Share, overlapped
from longplay.pipeline.stream import Meter, Progress, Stage, silent
from longplay.prompt import Prompt, SettledOptions
from longplay.text import TextTokenizer

M = TypeVar("M")

# A shorter first window, so that sound starts early; the decoder's windows lag behind the flow's by more than it sees.
FIRST_SECONDS = 0.6
LAG_SECONDS = 0.2
PIECE_SECONDS = 1.0
# How far a stage may be ahead of the next one.
AHEAD_CODES = 512  # chunks of codes, a few KB: the lm never waits for long
AHEAD_WINDOWS = 2


@dataclass(frozen=True)
class Steps:
    """The models of a system at work on one piece.

    Attributes:
        system: the models.
        name: what messages call the system.
        options: of this piece.
        progress: hears the seconds that each stage has made.
    """

    system: System
    name: str
    options: SettledOptions
    progress: Progress

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises CheckpointError where the model has none, as its siblings do."""
        return self._need(self.system.tokenizer, "tokenizer")

    @property
    def lm(self) -> LM:
        """See `tokenizer`."""
        return self._need(self.system.lm, "lm")

    @property
    def text_tokenizer(self) -> TextTokenizer:
        """See `tokenizer`."""
        return self._need(self.system.text_tokenizer, "text tokenizer")

    @property
    def flow(self) -> Flow:
        """See `tokenizer`."""
        return self._need(self.system.flow, "flow")

    @property
    def codec(self) -> Codec:
        """See `tokenizer`."""
        return self._need(self.system.codec, "codec")

    @property
    def decoder(self) -> Tokenizer | Codec:
        """The model that makes the audio."""
        return self.tokenizer if self.options.fast else self.codec

    @property
    def sample_rate(self) -> int:
        """Of what `decode` makes, in Hz."""
        return self.decoder.config.sample_rate

    @property
    def heard_seconds(self) -> float:
        """How much of an audio prompt to hear; the published code hears no more than 5 s."""
        if self.options.compatibility == "reference":
            return min(self.options.prompt_seconds, REFERENCE_PROMPT_SECONDS)
        return self.options.prompt_seconds

    def piece(self, prompt: Prompt, heard: Heard | None = None) -> Piece:
        """What the lm is to make.

        Args:
            prompt: what is asked for.
            heard: the end of a recording to go on from.
        """
        piece = self._begin(prompt, self.options.seed)
        if heard is None:
            return piece
        wav = torch.from_numpy(heard.wav)[None].to(self.system.device)
        piece = replace(piece, prompt=encode(self.tokenizer, wav)[0], offset=heard.start)
        if not self.lm.config.control:
            return piece
        found, end = find_control(heard, self.tokenizer.config.sample_rate), heard.start + heard.seconds
        return replace(piece, control=carry_on(prompt, piece.seed, found, end, end + self.options.seconds))

    def generate(self, piece: Piece) -> Iterator[Tensor]:
        """Codes [1, T] of what a piece goes on from, then those that the lm makes, as it makes them."""
        before = [piece.prompt[None]] if len(piece.prompt) else []
        new = generate(self.lm, [piece], self.options)
        return chain(before, self.metered(new, "lm", self.lm.config.code_rate))

    def sketch(
        self, prompt: Prompt, seeds: Sequence[int], seconds: float, held: int | None = None
    ) -> list[tuple[Tensor, Wav]]:
        """How pieces with these seeds begin, codes [T] and audio [1, S] of each: their codes are made side by side.

        Args:
            prompt: text and sections.
            seeds: one for each piece.
            seconds: of the beginning.
            held: seed of what all of them are held to; None: each by its own.
        """
        frames = round(seconds * self.lm.config.code_rate)
        chunks, count = list[Tensor](), 0
        pieces = [self._begin(prompt, seed) for seed in seeds]
        if held is not None:
            control = self.held_to(prompt, held)
            pieces = [replace(piece, control=control) for piece in pieces]
        with closing(generate(self.lm, pieces, self.options)) as new:
            for chunk in new:
                chunks.append(chunk)
                count += chunk.shape[1]
                if count >= frames:
                    break
        codes = torch.cat(chunks, dim=1)[:, :frames]
        made = []
        for piece, row in zip(pieces, codes, strict=True):
            steps = replace(self, options=self.options.with_seed(piece.seed), progress=silent)
            own = row[row != NO_CODE]
            made.append((own, np.concatenate(list(steps.decode([own[None]], piece)), axis=1)))
        return made

    def held_to(self, prompt: Prompt, seed: int) -> Control | None:
        """Pulse, key and chords of a piece; None where the model is told of none."""
        config = self.lm.config
        return arrange(prompt, seed, prompt.start + self.options.seconds, config.chords) if config.control else None

    def _begin(self, prompt: Prompt, seed: int) -> Piece:
        rate, options = self.lm.config.code_rate, self.options
        frames = max(1, round(options.seconds * rate))
        return Piece(
            ids=tuple(self.text_tokenizer.encode(prompt.text)),
            frames=frames,
            seed=seed,
            sections=prompt.sections,
            prompt=torch.zeros(0, dtype=torch.long),
            offset=prompt.start,
            min_frames=None if options.compatibility == "reference" else frames,
            history=None if options.history_seconds is None else round(options.history_seconds * rate),
            control=self.held_to(prompt, seed),
        )

    def decode(
        self, codes: Iterable[Tensor], piece: Piece | None = None, skip: float = 0.0
    ) -> Generator[Wav, None, None]:
        """Audio [1, S] of codes [1, T] as they come.

        Args:
            codes: of the lm, or of a recording.
            piece: that they are of, whose chords the flow may be told of.
            skip: seconds at the start that are not counted as made.
        """
        frames = codes if self.options.fast else self._latents(codes, piece, skip)
        return self._audio(frames, skip)

    def make(self, prompt: Prompt, heard: Heard | None = None) -> Generator[Wav, None, None]:
        """Audio [1, S] of a prompt, and before it of what is heard: all steps in one.

        On a CPU they work at the same time. An accelerator does one thing after the other anyway.
        """
        skip = heard.seconds if heard else 0.0
        piece = self.piece(prompt, heard)
        codes = self.generate(piece)
        if self.system.device.type != "cpu":
            return self.decode(codes, piece, skip)
        threads = torch.get_num_threads()
        share, cores = Share.of(threads), Cores(threads)
        frames = overlapped(codes, share.lm, AHEAD_CODES, cores)
        if not self.options.fast:
            frames = overlapped(self._latents(frames, piece, skip), share.flow, AHEAD_WINDOWS, cores)
        return overlapped(self._audio(frames, skip), share.decoder, AHEAD_WINDOWS, cores)

    def reconstruct(self, audio: Audio, latents: bool) -> Audio:
        """A recording encoded and decoded, channel by channel; `progress` hears the seconds of all channels together.

        Args:
            audio: of any rate and channels.
            latents: through the codec alone; else from the tokenizer's codes.
        """

        def channel(number: int) -> Wav:
            def progress(stage: Stage, seconds: float) -> None:
                self.progress(stage, number * audio.seconds + seconds)

            mono = Audio(audio.wav[number : number + 1], audio.sample_rate)
            return replace(self, progress=progress)._reconstruct(mono, latents)

        made = np.concatenate([channel(number) for number in range(audio.wav.shape[0])])
        return Audio(fit(made, round(audio.seconds * self.sample_rate)), self.sample_rate)

    def _reconstruct(self, mono: Audio, latents: bool) -> Wav:
        encoder = self.codec if latents else self.tokenizer
        wav = mono.resample(encoder.config.sample_rate).wav
        codes = encode(encoder, torch.from_numpy(wav)[None].to(self.system.device))
        frames = self.codec.embed(codes) if latents else codes  # of the whole: codes of the codec may overlap
        pieces = frames.split(round(PIECE_SECONDS * encoder.config.frame_rate), dim=-1)
        chunks = self._audio(pieces, 0.0) if latents else self.decode(pieces)
        return np.concatenate(list(chunks), axis=1)

    def _latents(self, codes: Iterable[Tensor], piece: Piece | None, skip: float) -> Iterator[Tensor]:
        row = self.flow_row(piece)
        run = flow_window(self.flow, (row.seed,), self.flow_settings, row.chords)
        return self.metered(run_stream(run, codes, self.flow_stream()), "flow", self.flow.config.frame_rate, skip)

    def flow_row(self, piece: Piece | None) -> FlowRow:
        """What the flow is told of a piece besides its codes."""
        rate = self.flow.config.code_rate
        control = None if piece is None or not self.flow.config.chords else piece.control
        if piece is None or control is None:
            return FlowRow(self.options.seed)

        def chords(first: int, count: int) -> Tensor:
            return torch.from_numpy(control.chord_features(piece.offset + first / rate, count, rate))

        return FlowRow(self.options.seed, chords)

    @property
    def flow_settings(self) -> FlowSettings:
        """How latents are sampled."""
        asked = self.options
        return FlowSettings(asked.num_steps, asked.flow_guidance, asked.solver, asked.flow_temperature)

    def flow_stream(self) -> WindowStream:
        """The windows of the flow."""
        return WindowStream(flow_plan(self.flow.config, first_seconds=FIRST_SECONDS))

    def decode_stream(self) -> DecodeStream:
        """The windows of the decoder."""
        return DecodeStream(self.decoder, decode_plan(self.decoder, FIRST_SECONDS, LAG_SECONDS))

    def _audio(self, frames: Iterable[Tensor], skip: float) -> Generator[Wav, None, None]:
        wav = stream_decode(self.decoder, frames, FIRST_SECONDS, LAG_SECONDS)
        stage: Stage = "tokenizer" if self.options.fast else "codec"
        made = self.metered(wav, stage, self.decoder.config.sample_rate, skip)
        return (as_wav(chunk) for chunk in made)

    def metered(self, tensors: Iterable[Tensor], stage: Stage, rate: float, skip: float = 0.0) -> Iterator[Tensor]:
        """The same tensors [..., T] at `rate`, telling `progress` how many seconds beyond `skip` have passed."""
        meter = Meter(self.progress, stage, rate, skip)
        for tensor in tensors:
            meter.count(tensor.shape[-1])
            yield tensor

    def _need(self, model: M | None, part: str) -> M:
        if model is None:
            present = ", ".join(self.system.config.present)
            raise CheckpointError(f"model {self.name!r}: has no {part}, which this task needs (it has {present})")
        return model


def as_wav(wav: Tensor) -> Wav:
    """Samples [1, S] of [1, 1, S].

    Raises:
        AudioError: one is not a number.
    """
    made = wav[0].float().cpu().numpy()
    if not np.isfinite(made).all():
        raise AudioError("the model made NaN or infinite samples; load it with dtype float32, or check it")
    return made
