"""Vocos decoder of the published tokenizer: latents to waveform (CHECKPOINTS.md 3.6).

latents [B, D, T] -> wav [B, 1, T * hop_length]. A convolution, a stack of residual blocks with one attention layer
over the whole length (`pos_net`), ConvNeXt blocks with an adaptive norm, inverse-STFT head. Source: Vocos
(arXiv 2306.00814), WavTokenizer (arXiv 2408.16532).
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.convnext import AdaLayerNorm, ConvNeXtBlock
from longplay.nn.istft import ISTFTHead


class VocosDecoderConfig(Config):
    """Size of the Vocos decoder; the defaults are what the published code fixes.

    Attributes:
        dim: channels.
        intermediate_dim: channels of the ConvNeXt expansion.
        num_layers: ConvNeXt blocks.
        num_conditions: rows of the adaptive norms, one per bandwidth of the published training; row 0 is used.
        n_fft: window of the inverse STFT, samples.
        kernel_size: of the first convolution and of the ConvNeXt blocks.
        residual_kernel_size: of the convolutions in `pos_net`.
        num_groups: of the group norms in `pos_net`.
        dropout: in the residual blocks of `pos_net`, while training.
        eps: of every norm.
    """

    kind: Literal["vocos"] = "vocos"
    dim: int = Field(gt=0)
    intermediate_dim: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    num_conditions: int = Field(gt=0)
    n_fft: int = Field(gt=0)
    kernel_size: int = Field(default=7, gt=0)
    residual_kernel_size: int = Field(default=3, gt=0)
    num_groups: int = Field(default=32, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    eps: float = Field(default=1e-6, gt=0)


class ResidualBlock(nn.Module):
    """Twice group norm, swish and convolution; added to the input."""

    def __init__(self, config: VocosDecoderConfig) -> None:
        super().__init__()
        dim, kernel_size = config.dim, config.residual_kernel_size
        self.norm1 = nn.GroupNorm(config.num_groups, dim, config.eps)
        self.conv1 = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2)
        self.norm2 = nn.GroupNorm(config.num_groups, dim, config.eps)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Float[Tensor, "B D T"]) -> Float[Tensor, "B D T"]:
        """[B, D, T] to the same shape."""
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(self.dropout(F.silu(self.norm2(h))))


class AttentionBlock(nn.Module):
    """Single-head attention of every frame to every frame; added to the input."""

    def __init__(self, config: VocosDecoderConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.num_groups, config.dim, config.eps)
        self.q = nn.Conv1d(config.dim, config.dim, 1)
        self.k = nn.Conv1d(config.dim, config.dim, 1)
        self.v = nn.Conv1d(config.dim, config.dim, 1)
        self.proj_out = nn.Conv1d(config.dim, config.dim, 1)

    def forward(self, x: Float[Tensor, "B D T"]) -> Float[Tensor, "B D T"]:
        """[B, D, T] to the same shape."""
        h = self.norm(x)
        q, k, v = (project(h).mT.unsqueeze(1) for project in (self.q, self.k, self.v))  # [B, 1, T, D]
        attended = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        return x + self.proj_out(attended.mT)


class VocosDecoder(nn.Module):
    """latents [B, latent_dim, T] -> wav [B, 1, T * hop_length]."""

    def __init__(self, config: VocosDecoderConfig, hop_length: int, latent_dim: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(latent_dim, config.dim, config.kernel_size, padding=config.kernel_size // 2)
        self.pos_net = nn.Sequential(
            ResidualBlock(config),
            ResidualBlock(config),
            AttentionBlock(config),
            ResidualBlock(config),
            ResidualBlock(config),
            nn.GroupNorm(config.num_groups, config.dim, config.eps),
        )
        self.norm = AdaLayerNorm(config.num_conditions, config.dim, config.eps)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(
                config.dim,
                config.intermediate_dim,
                config.kernel_size,
                scale=1 / config.num_layers,
                num_conditions=config.num_conditions,
                eps=config.eps,
            )
            for _ in range(config.num_layers)
        )
        self.final_norm = nn.LayerNorm(config.dim, config.eps)
        self.head = ISTFTHead(config.dim, config.n_fft, hop_length)

    def backbone(self, latents: Float[Tensor, "B D T"], condition: int = 0) -> Float[Tensor, "B T E"]:
        """Features [B, T, dim] from which the head makes samples.

        Args:
            latents: [B, latent_dim, T].
            condition: row of the adaptive norms; the published system always uses 0.
        """
        h = self.pos_net(self.embed(latents))
        h = self.norm(h.mT, condition).mT
        for block in self.blocks:
            h = block(h, condition)
        return self.final_norm(h.mT)

    def forward(self, latents: Float[Tensor, "B D T"], condition: int = 0) -> Float[Tensor, "B 1 S"]:
        """Decode; arguments as for `backbone`."""
        return self.head(self.backbone(latents, condition)).unsqueeze(1)

    @property
    def receptive_field(self) -> None:
        """None: attention and group norm in `pos_net` let every frame influence every sample."""
        return None
