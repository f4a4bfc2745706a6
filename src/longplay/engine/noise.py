"""Noise that depends on nothing but a seed and a place: every window of a piece sees the same noise.

`FrameNoise((7,), dim)(a, b)` is always the same cut out of one endless standard normal sequence, however the piece is
split, and whichever other pieces run beside it.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_FRAMES = 64


@dataclass(frozen=True)
class FrameNoise:
    """Endless noise [B, dim, ...], one row per seed.

    Attributes:
        seeds: of the pieces.
        dim: values per frame.
    """

    seeds: tuple[int, ...]
    dim: int

    def __call__(self, start: int, stop: int, device: torch.device | None = None) -> Tensor:
        """The frames from `start` to `stop`, [B, dim, stop - start] on `device`; drawn on the CPU everywhere."""
        first, last = start // BLOCK_FRAMES, -(-stop // BLOCK_FRAMES)
        rows = [
            torch.cat([_block(seed, index, self.dim) for index in range(first, last)], dim=1) for seed in self.seeds
        ]
        skip = first * BLOCK_FRAMES
        return torch.stack(rows)[:, :, start - skip : stop - skip].to(device)


def _block(seed: int, index: int, dim: int) -> Tensor:
    # Hashed, since neighbouring seeds and indices must not share a stream.
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    return torch.randn(dim, BLOCK_FRAMES, generator=generator)
