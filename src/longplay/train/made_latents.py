"""Latents as they are in generation: what a model's flow makes of the codes that its tokenizer hears.

A decoder that has only met the latents of recordings takes those of a flow for noise and blur in the music. Trained on
them, it learns what they stand for, as vocoders of speech are trained on the spectrograms of their acoustic models.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from longplay.audio.resample import resample
from longplay.checkpoint.system import load_system
from longplay.config import same_rate
from longplay.errors import CheckpointError
from longplay.models.codec import CodecConfig
from longplay.train.encoding import tokenizer_of


class MadeLatents:
    """The first two models of a directory.

    Args:
        directory: of a model with tokenizer and flow.
        codec: whose latents the flow makes.

    Raises:
        CheckpointError: it has none, or its latents are not those of the codec.
    """

    def __init__(self, directory: Path, codec: CodecConfig) -> None:
        system = load_system(directory)
        if system.flow is None:
            raise CheckpointError(
                f"{directory}: has {', '.join(system.config.present)}; latents are made by a tokenizer and a flow"
            )
        flow = system.flow.config
        if flow.latent_dim != codec.latent_dim or not same_rate(flow.frame_rate, codec.frame_rate):
            raise CheckpointError(
                f"{directory}: its flow makes {flow.latent_dim} channels at {flow.frame_rate:g} Hz, the codec takes "
                f"{codec.latent_dim} at {codec.frame_rate:g} Hz"
            )
        self._tokenizer = tokenizer_of(system, directory).eval().requires_grad_(False)
        self._flow = system.flow.eval().requires_grad_(False)
        self._sample_rate = codec.sample_rate
        self._hop_length = codec.hop_length

    @torch.no_grad()
    def __call__(self, wav: Float[Tensor, "B 1 S"]) -> Float[Tensor, "B D T"]:
        """Latents of audio at the codec's rate, by the flow's own solver; its noise is drawn from torch's default generator."""
        tokenizer, flow = self._tokenizer.to(wav.device), self._flow.to(wav.device)
        rate = tokenizer.config.sample_rate
        heard = np.stack([resample(row, self._sample_rate, rate) for row in wav.cpu().numpy()])
        codes = tokenizer.encode(torch.from_numpy(heard).to(wav.device))
        frames = -(-wav.shape[-1] // self._hop_length)
        made = flow.sample(codes)
        return torch.nn.functional.pad(made, (0, max(0, frames - made.shape[-1])), mode="replicate")[..., :frames]
