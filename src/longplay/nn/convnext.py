"""ConvNeXt over time (arXiv 2201.03545 in the one-dimensional form of Vocos, arXiv 2306.00814): blocks, and a stack."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.masking import Padding, hide


class AdaLayerNorm(nn.Module):
    """Layer norm whose scale and shift are looked up by a condition id (CHECKPOINTS.md 3.6)."""

    def __init__(self, num_embeddings: int, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Embedding(num_embeddings, dim)
        self.shift = nn.Embedding(num_embeddings, dim)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Float[Tensor, "B T D"], condition: int) -> Float[Tensor, "B T D"]:
        """Normalise [B, T, D] with the affine row `condition`."""
        return F.layer_norm(
            x, x.shape[-1:], weight=self.scale.weight[condition], bias=self.shift.weight[condition], eps=self.eps
        )


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm, pointwise expansion with GELU, scaled residual.

    Args:
        dim: channels.
        intermediate_dim: channels of the expansion.
        kernel_size: of the depthwise convolution (odd; padded to keep the length).
        scale: initial value of the residual scale `gamma`.
        num_conditions: rows of an adaptive norm; None for a plain layer norm.
        eps: of the norm.
    """

    def __init__(
        self,
        dim: int,
        intermediate_dim: int,
        kernel_size: int = 7,
        scale: float = 1.0,
        num_conditions: int | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps) if num_conditions is None else AdaLayerNorm(num_conditions, dim, eps)
        self.pwconv1 = nn.Linear(dim, intermediate_dim)
        self.pwconv2 = nn.Linear(intermediate_dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Float[Tensor, "B D T"], condition: int = 0) -> Float[Tensor, "B D T"]:
        """[B, D, T] to the same shape."""
        h = self.dwconv(x).transpose(1, 2)  # [B, T, D]
        h = self.norm(h) if isinstance(self.norm, nn.LayerNorm) else self.norm(h, condition)
        h = self.gamma * self.pwconv2(F.gelu(self.pwconv1(h)))
        return x + h.transpose(1, 2)


class ConvNeXtStack(nn.Module):
    """An embedding over `kernel_size` frames, and blocks between two norms: the body of our decoders.

    Args:
        input_dim: channels that come in.
        dim, intermediate_dim, num_layers, kernel_size: of the blocks.
    """

    def __init__(self, input_dim: int, dim: int, intermediate_dim: int, num_layers: int, kernel_size: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(input_dim, dim, kernel_size, padding=kernel_size // 2)
        self.norm = nn.LayerNorm(dim, 1e-6)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(dim, intermediate_dim, kernel_size, scale=1 / num_layers) for _ in range(num_layers)
        )
        self.final_norm = nn.LayerNorm(dim, 1e-6)

    def features(self, x: Float[Tensor, "B C T"], padding: Padding | None = None) -> Float[Tensor, "B T D"]:
        """What the blocks make of x, in their precision; padded frames are silence to them."""
        h = self.norm(self.embed(hide(x.to(self.embed.weight.dtype), padding)).mT).mT
        for block in self.blocks:
            h = block(hide(h, padding))
        return self.final_norm(h.mT)


class ConvNeXtEncoderConfig(Config):
    """Sizes of the encoder of a flow that has the body of a tokenizer's decoder, and can start as it."""

    kind: Literal["convnext"] = "convnext"
    dim: PositiveInt
    intermediate_dim: PositiveInt
    num_layers: PositiveInt
    kernel_size: int = Field(default=7, gt=0)


class ConvNeXtEncoder(ConvNeXtStack):
    """Embedded codes [B, T, D_in] -> features [B, T, D]; each frame depends on few around it."""

    def __init__(self, input_dim: int, config: ConvNeXtEncoderConfig) -> None:
        super().__init__(input_dim, config.dim, config.intermediate_dim, config.num_layers, config.kernel_size)

    def forward(self, x: Float[Tensor, "B T C"], padding: Padding | None = None) -> Float[Tensor, "B T D"]:
        """Encode; what stands on padded frames means nothing."""
        return self.features(x.mT, padding)
