"""Stage `flow`: from the tokenizer's codes to the codec's latents, by flow matching on crops of token shards.

With `reflow` a trained flow learns from its own results instead (rectified flow, arXiv 2209.03003): each noise is paired
with the latents that the flow, guided, carries it to. The paths between such pairs hardly cross, so they become straight
and a few steps follow them; the guidance is learnt with them and need not be computed again.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from longplay.checkpoint.hub import locate
from longplay.checkpoint.system import load_system
from longplay.config import Config
from longplay.data.crops import excerpt
from longplay.data.manifest import read_manifest
from longplay.data.token_tracks import TokenTrack, figures_of, some_of
from longplay.data.token_windows import TokenWindow, TokenWindows
from longplay.engine.encode import context_frames
from longplay.errors import TrainingError
from longplay.models.codec import Codec
from longplay.models.flow import Flow
from longplay.models.flow_config import FlowConfig
from longplay.nn.conformer import ConformerLayer
from longplay.nn.convnext import ConvNeXtBlock
from longplay.nn.ode import cosine_time
from longplay.nn.unet import ResnetBlock, TransformerBlock
from longplay.train.encoding import load_tokenizer
from longplay.train.export import export_model
from longplay.train.init import start_from
from longplay.train.loop_config import LoopConfig
from longplay.train.noise import fit_noise, is_white
from longplay.train.regression import start_from_decoder
from longplay.train.samples import write_sample
from longplay.train.stage import Batch, Losses

FITTED_BATCHES = 24  # of 16 crops, which the length regulator is fitted to: half an hour of music
BLOCKS = (ConformerLayer, ConvNeXtBlock, ResnetBlock, TransformerBlock)
STEPS = (1, 2, 4, 10)  # that a straightened flow is measured at


class ReflowConfig(Config):
    """How the flow that teaches is sampled; default as its own config says."""

    num_steps: int | None = Field(default=None, gt=0)
    guidance: float | None = Field(default=None, ge=0)


class FlowStageConfig(Config):
    """Everything of a `flow` run.

    Attributes:
        codec: the model directory whose latents are learnt.
        music: the manifest of the pieces in the shards. Latents then are what the codec's encoder makes of the recordings,
            before its codebooks; else those of the shards' acoustic codes, as published.
        tokenizer: a model directory whose tokenizer's decoder the encoder starts as, of the same sizes, and the length regulator
            as the least squares from there to the latents. Codes then mean something from the first step.
        init: a model whose flow this run starts from, by directory or name; statistics of the latents are those of this run's codec.
        latent_scale: normalise each channel by its own deviation, or all by one, for latents whose scale means something:
            those of a codec with a shortcut, where a small channel is one that is hardly heard.
        reflow: straighten the paths of `init`, for few steps without guidance. Codes of the shards are used, latents not.
    """

    stage: Literal["flow"]
    flow: FlowConfig
    codec: Path
    music: Path | None = None
    tokenizer: Path | None = None
    init: Path | None = None
    latent_scale: Literal["channel", "common"] = "channel"
    reflow: ReflowConfig | None = None
    crop_seconds: float = Field(default=5.0, gt=0)
    batch_size: int = Field(default=8, gt=0)
    held_out_crops: int = Field(default=16, gt=0)
    loop: LoopConfig

    @model_validator(mode="after")
    def _reflow_has_a_teacher(self) -> "FlowStageConfig":
        if self.reflow is not None and self.init is None:
            raise ValueError("reflow straightens a trained flow; give its model directory as init")
        if self.reflow is not None and self.flow.guidance:
            raise ValueError(
                f"flow.guidance = {self.flow.guidance:g} would guide twice: reflow learns the guidance; set flow.guidance to 0"
            )
        return self

    @model_validator(mode="after")
    def _reflow_makes_straight(self) -> "FlowStageConfig":
        if self.flow.precondition and self.flow.straight != (self.reflow is not None):
            raise ValueError(
                f"flow.straight = {str(self.flow.straight).lower()}: paths of a flow with precondition are straight after reflow alone; "
                "set flow.straight to true with reflow, and to false without"
            )
        return self

    @model_validator(mode="after")
    def _one_start(self) -> "FlowStageConfig":
        if self.tokenizer is not None and self.init is not None:
            raise ValueError(
                f"a flow starts from init ({self.init}) or from a tokenizer's decoder ({self.tokenizer}), not from both; set one to null"
            )
        return self


class FlowStage:
    """Trains the flow.

    Args:
        config: of the run.
        codec: makes the latents, and of latents samples to listen to.
        train_tracks, held_out_tracks: to learn from, and to measure with.
        begins: measure on the music what the flow starts from; else a checkpoint holds it.
    """

    def __init__(
        self,
        config: FlowStageConfig,
        codec: Codec,
        train_tracks: Sequence[TokenTrack],
        held_out_tracks: Sequence[TokenTrack],
        begins: bool = True,
    ) -> None:
        self.name = "flow"
        self.config = config
        self.codec = codec
        self.model = Flow(config.flow)
        init = None if config.init is None else locate(str(config.init))
        if init is not None:
            start_from(self.model, "flow", init)
        frames = round(config.crop_seconds * config.flow.code_rate)
        self.files: dict[str, Path] = {}
        if config.music is not None:
            self.files = {t.id: config.music.parent / t.path for t in read_manifest(config.music) if t.codec_ok}
            train_tracks, held_out_tracks = (
                some_of(each, np.array([utt in self.files for utt in figures_of(each).utts], bool))
                for each in (train_tracks, held_out_tracks)
            )
            if not (train_tracks and held_out_tracks):
                raise TrainingError(
                    f"{config.music}: music: names no recording good enough for the codec for {(len(train_tracks) and 'the valid') or 'the train'} "
                    "pieces of the shards; give the manifest that they were made from"
                )
        elif missing := [*_without_acoustic(train_tracks), *_without_acoustic(held_out_tracks)]:
            raise TrainingError(
                f"{len(missing)} pieces have no acoustic codes ({missing[0]}); encode them with a codec, or set music to their manifest"
            )
        self.windows = TokenWindows(train_tracks, frames)
        self.held_out = TokenWindows(held_out_tracks, frames)
        self.others = nn.ModuleDict()
        self.learning_rates: dict[str, float] = {}
        self.blocks = [part for part in self.model.modules() if isinstance(part, BLOCKS)]
        self.partial_gradients = False
        self.keeps_resting = False
        self.batch_size = config.batch_size
        self.teacher: Flow | None = None
        if config.reflow is not None:
            assert init is not None
            self.teacher = load_system(init).flow
            assert self.teacher is not None  # the model has just started from it
            self.teacher.eval().requires_grad_(False)
        elif begins:
            self._measure(train_tracks)

    def _measure(self, tracks: Sequence[TokenTrack]) -> None:
        """What the music says before the first step: the scale of the latents, a first guess, and what guesses leave."""
        config = self.config
        if config.flow.normalize_latents:
            _, latents = self._tensors(self.windows.batch(config.loop.seed, 2**31, 64))
            deviation = latents.std((0, 2)).clamp_min(1e-3)
            common = deviation.square().mean().sqrt().expand_as(deviation)
            scale = common if config.latent_scale == "common" else deviation
            self.model.set_latent_statistics(latents.mean((0, 2)), scale)
            if config.flow.precondition and config.init is None:  # a flow that has learnt knows what its guess leaves
                self.model.latent_spread.copy_(deviation / scale)
        if config.tokenizer is not None:
            start_from_decoder(self.model, load_tokenizer(config.tokenizer), self._batches(self.windows))
        if config.flow.noise_reach and is_white(self.model):
            reach = -(-config.flow.noise_reach // config.flow.ratio)
            fit_noise(self.model, self._batches(TokenWindows(tracks, max(self.windows.frames, 2 * reach + 1))))

    def _batches(self, windows: TokenWindows) -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(FITTED_BATCHES):
            yield self._tensors(windows.batch(self.config.loop.seed, 2**31 + 1 + index, 16))

    def batch(self, step: int, rows: slice) -> Batch:
        """`codes` [B, T], `latents` [B, D, T * ratio] and, for a flow that is told of them, `chords` [B, T, C]."""
        windows = self.windows.batch(self.config.loop.seed, step, self.batch_size)[rows]
        codes, latents = self._tensors(windows)
        chords = self._chords(windows)
        return {"codes": codes, "latents": latents} | ({} if chords is None else {"chords": chords})

    def losses(self, step: int, batch: Batch) -> Losses:
        """Flow-matching loss; times, noise and dropout are drawn from torch's default generator."""
        codes, chords = batch["codes"], batch.get("chords")
        if chords is not None:
            told = torch.rand(len(chords), 1, 1, device=chords.device) >= self.config.flow.chord_dropout
            chords = chords * told
        if self.teacher is None:
            loss = self.model.loss(codes, batch["latents"], chords=chords)
        else:
            white = self.model.white(batch["latents"].shape, batch["latents"])
            loss = self._straight_loss(self.model, codes, white, torch.rand(len(codes), device=codes.device), chords)
        return Losses({"model": loss}, {"loss": loss.detach()})

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The loss on fixed crops, with fixed noise and times.

        Of a flow that is told of chords also `loss_with_chords`; of one that is straightened also `off_1`, `off_2`, ...: how far one step, two, ... end from where its teacher
        ends, in deviations of the latents.
        """
        assert isinstance(model, Flow)
        windows = self.held_out.batch(1, 0, self.config.held_out_crops)
        codes, latents = self._tensors(windows)
        device = next(model.parameters()).device
        codes, latents = codes.to(device), latents.to(device)
        generator = torch.Generator().manual_seed(1)
        chords = self._chords(windows)
        chords = None if chords is None else chords.to(device)
        if self.teacher is None:
            losses = {"loss": float(model.loss(codes, latents, generator=generator))}
            if chords is not None:
                told = model.loss(codes, latents, generator=torch.Generator().manual_seed(1), chords=chords)
                losses["loss_with_chords"] = float(told)
            return losses
        white = model.white(latents.shape, latents, generator)
        u = torch.rand(len(codes), generator=generator).to(device)
        losses = {"loss": float(self._straight_loss(model, codes, white, u, chords))}
        taught = model.normalize(self._taught(codes, white, chords))
        for steps in STEPS:
            made = model.normalize(model.sample(codes, white, num_steps=steps, guidance=0.0, chords=chords))
            losses[f"off_{steps}"] = float((made - taught).square().mean().sqrt())
        return losses

    def _straight_loss(self, model: Flow, codes: Tensor, white: Tensor, u: Tensor, chords: Tensor | None) -> Tensor:
        """The loss on the straight paths from noise to where the teacher takes it, at times drawn as u in [0, 1)."""
        x_1 = model.normalize(self._taught(codes, white, chords))
        keep = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
        mu = model.condition(codes, chords=chords)
        return model.velocity_loss(mu, x_1, model.noise(white), cosine_time(u), keep)

    @torch.no_grad()
    def _taught(self, codes: Tensor, white: Tensor, chords: Tensor | None) -> Tensor:
        assert self.teacher is not None
        assert self.config.reflow is not None
        teacher = self.teacher.to(codes.device)
        return teacher.sample(
            codes,
            white,
            num_steps=self.config.reflow.num_steps,
            guidance=self.config.reflow.guidance,
            chords=chords if teacher.config.chords else None,
        ).float()

    def sample(self, model: nn.Module, directory: Path) -> None:
        """The codec's own decoding of two held-out crops, and what the flow makes of their codes."""
        assert isinstance(model, Flow)
        codes, latents = self._tensors(self.held_out.batch(2, 0, 2))
        device = next(model.parameters()).device
        made = self.codec.decode(model.sample(codes.to(device), generator=torch.Generator().manual_seed(2)).cpu())
        original = self.codec.decode(latents)
        for index in range(len(codes)):
            write_sample(directory / f"{index}", original[index, 0], made[index, 0], self.codec.config.sample_rate)

    def report(self, run: Path) -> None:
        """Nothing: the curves show all."""

    def export(self, model: nn.Module, directory: Path) -> None:
        """Native model directory with this one model."""
        export_model("flow", model, self.config.flow, directory)

    @torch.no_grad()
    def _tensors(self, windows: list[TokenWindow]) -> tuple[Tensor, Tensor]:
        """Codes [B, T] and latents [B, D, T * ratio] of windows."""
        codes = torch.from_numpy(np.stack([window.semantic for window in windows]).astype(np.int64))
        if self.files:
            return codes, torch.cat([self._heard(window) for window in windows])
        return codes, torch.cat([self._embedded(window) for window in windows])

    def _chords(self, windows: Sequence[TokenWindow]) -> Tensor | None:
        """Features [B, T, C] of the chords at each code; None for a flow that is told of none."""
        if not self.config.flow.chords:
            return None
        rate = self.config.flow.code_rate
        rows = [
            window.track.control.chord_features(window.track.offset + window.start / rate, len(window.semantic), rate)
            for window in windows
        ]
        return torch.from_numpy(np.stack(rows))

    def _heard(self, window: TokenWindow) -> Tensor:
        """Latents [1, D, T] of the recording, with what the encoder hears around them."""
        rate, hop, around = self.codec.config.sample_rate, self.codec.config.hop_length, context_frames(self.codec)
        ratio = self.config.flow.ratio
        frames = len(window.semantic) * ratio
        start = (window.start * ratio - around) * hop
        wav = excerpt(self.files[window.track.utt], start, (frames + 2 * around) * hop, rate)
        return self.codec.encoder(torch.from_numpy(wav)[None, None])[..., around : around + frames]

    def _embedded(self, window: TokenWindow) -> Tensor:
        """Latents [1, D, T] of the codec's codes, with those around them that overlap."""
        ratio, around = self.config.flow.ratio, self.codec.config.quantizer.overlap // 2
        start, length = window.start * ratio, len(window.semantic) * ratio
        first = max(0, start - around)
        codes = torch.from_numpy(window.track.acoustic[None, :, first : start + length + around].astype(np.int64))
        latents = self.codec.embed(codes)[..., start - first :][..., :length]
        # the last hop of the tokenizer may be only half filled: the codec then has a frame less
        return F.pad(latents, (0, length - latents.shape[-1]), mode="replicate")


def _without_acoustic(tracks: Sequence[TokenTrack]) -> list[str]:
    """Ids of the pieces that have no codes of a codec."""
    figures = figures_of(tracks)
    return [figures.utts[index] for index in np.flatnonzero(figures.acoustic == 0)]
