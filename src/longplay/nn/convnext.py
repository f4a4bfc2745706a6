"""ConvNeXt block over time (arXiv 2201.03545 in the one-dimensional form of Vocos, arXiv 2306.00814)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


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
