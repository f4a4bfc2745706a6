"""Stage `flow`: from the tokenizer's codes to the codec's latents, by flow matching on crops of token shards."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from longplay.config import Config
from longplay.data.token_windows import TokenTrack, TokenWindow, TokenWindows
from longplay.errors import TrainingError
from longplay.models.codec import Codec
from longplay.models.flow import Flow, FlowConfig
from longplay.nn.conformer import ConformerLayer
from longplay.nn.unet import ResnetBlock, TransformerBlock
from longplay.train.export import export_model
from longplay.train.init import start_from
from longplay.train.loop_config import LoopConfig
from longplay.train.samples import write_sample
from longplay.train.stage import Batch, Losses


class FlowStageConfig(Config):
    """Everything of a `flow` run.

    Attributes:
        codec: the model directory whose latents are learnt.
        init: a model directory whose flow this run starts from; statistics of the latents are those of this run's codec.
    """

    stage: Literal["flow"]
    flow: FlowConfig
    codec: Path
    init: Path | None = None
    crop_seconds: float = Field(default=5.0, gt=0)
    batch_size: int = Field(default=8, gt=0)
    held_out_crops: int = Field(default=16, gt=0)
    loop: LoopConfig


class FlowStage:
    """Trains the flow; the codec only turns acoustic codes into latents, and latents into samples to listen to."""

    def __init__(
        self, config: FlowStageConfig, codec: Codec, train_tracks: list[TokenTrack], held_out_tracks: list[TokenTrack]
    ) -> None:
        self.name = "flow"
        self.config = config
        self.codec = codec
        self.model = Flow(config.flow)
        if config.init is not None:
            start_from(self.model, "flow", config.init)
        frames = round(config.crop_seconds * config.flow.code_rate)
        missing = [track.utt for track in [*train_tracks, *held_out_tracks] if not len(track.acoustic)]
        if missing:
            raise TrainingError(
                f"{len(missing)} pieces have no acoustic codes ({missing[0]}); encode them with a codec"
            )
        self.windows = TokenWindows(train_tracks, frames)
        self.held_out = TokenWindows(held_out_tracks, frames)
        self.others = nn.ModuleDict()
        self.learning_rates: dict[str, float] = {}
        self.blocks = [
            part for part in self.model.modules() if isinstance(part, ConformerLayer | ResnetBlock | TransformerBlock)
        ]
        self.partial_gradients = False
        self.batch_size = config.batch_size
        if config.flow.normalize_latents:
            _, latents = self._tensors(self.windows.batch(config.loop.seed, 2**31, 64))
            self.model.set_latent_statistics(latents.mean((0, 2)), latents.std((0, 2)).clamp_min(1e-3))

    def batch(self, step: int, rows: slice) -> Batch:
        """`codes` [B, T] and `latents` [B, D, T * ratio]."""
        codes, latents = self._tensors(self.windows.batch(self.config.loop.seed, step, self.batch_size)[rows])
        return {"codes": codes, "latents": latents}

    def losses(self, step: int, batch: Batch) -> Losses:
        """Flow-matching loss; times, noise and dropout are drawn from torch's default generator."""
        loss = self.model.loss(batch["codes"], batch["latents"])
        return Losses({"model": loss}, {"loss": loss.detach()})

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The loss on fixed crops, with fixed noise and times."""
        assert isinstance(model, Flow)
        codes, latents = self._tensors(self.held_out.batch(1, 0, self.config.held_out_crops))
        device = next(model.parameters()).device
        codes, latents = codes.to(device), latents.to(device)
        return {"loss": float(model.loss(codes, latents, generator=torch.Generator().manual_seed(1)))}

    def sample(self, model: nn.Module, directory: Path) -> None:
        """The codec's own decoding of two held-out crops, and what the flow makes of their codes."""
        assert isinstance(model, Flow)
        codes, latents = self._tensors(self.held_out.batch(2, 0, 2))
        device = next(model.parameters()).device
        made = self.codec.decode(model.sample(codes.to(device), generator=torch.Generator().manual_seed(2)).cpu())
        original = self.codec.decode(latents)
        for index in range(len(codes)):
            write_sample(directory / f"{index}", original[index, 0], made[index, 0], self.codec.config.sample_rate)

    def export(self, model: nn.Module, directory: Path) -> None:
        """Native model directory with this one model."""
        export_model("flow", model, self.config.flow, directory)

    @torch.no_grad()
    def _tensors(self, windows: list[TokenWindow]) -> tuple[Tensor, Tensor]:
        """Codes [B, T] and latents [B, D, T * ratio] of windows."""
        codes = np.stack([window.semantic for window in windows]).astype(np.int64)
        acoustic = np.stack([self._acoustic(window) for window in windows]).astype(np.int64)
        return torch.from_numpy(codes), self.codec.embed(torch.from_numpy(acoustic))

    def _acoustic(self, window: TokenWindow) -> np.ndarray:
        ratio = self.config.flow.ratio
        start, length = window.start * ratio, len(window.semantic) * ratio
        part = window.track.acoustic[:, start : start + length]
        # the last hop of the tokenizer may be only half filled: the codec then has a frame less
        return np.pad(part, ((0, 0), (0, length - part.shape[1])), mode="edge")
