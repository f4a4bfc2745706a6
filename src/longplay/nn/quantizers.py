"""Vector quantizers: one codebook, and groups of codebooks in residual layers.

Source: VQ-VAE-2 (arXiv 1906.00446, EMA codebooks), HiFi-Codec (arXiv 2305.02765, group-residual VQ),
CHECKPOINTS.md 3.5 and 3.6. Own models revive dead codes from the current batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, field_validator
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.overlap import Chosen, Overlap
from longplay.nn.whole_batch import rows_of_all

MOVING = ("cluster_size", "embed_avg", "inited")  # state of a codebook in training, which a release leaves out


class Quantized(NamedTuple):
    """`values` [B, D, T] with straight-through gradient, `codes` [B, K, T], `loss` scalar."""

    values: Tensor
    codes: Tensor
    loss: Tensor

    @classmethod
    def bypass(cls, latents: Tensor, num_codebooks: int) -> "Quantized":
        """Latents [B, D, T] as they are, with codes of zero and no loss."""
        codes = torch.zeros(len(latents), num_codebooks, latents.shape[-1], dtype=torch.long, device=latents.device)
        return cls(latents, codes, torch.zeros((), device=latents.device))

    def beside(self, latents: Tensor, rows: int) -> "Quantized":
        """The same, but the values of the first `rows` are the latents [B, D, T] as they are."""
        return self._replace(values=torch.cat((latents[:rows].to(self.values.dtype), self.values[rows:])))


@dataclass(frozen=True)
class CodeUsage:
    """How much of its codebooks a model uses: `counts` [K, size], how often each code of each of K codebooks occurs."""

    counts: Tensor

    @classmethod
    def of(cls, codes: Tensor, size: int) -> "CodeUsage":
        """Usage in `codes` [K, N], N codes of each of K codebooks of `size`."""
        return cls(torch.stack([torch.bincount(book, minlength=size) for book in codes]))

    @property
    def books(self) -> tuple[float, ...]:
        """Share of the codes of each codebook that occur."""
        return tuple((self.counts > 0).double().mean(1).tolist())

    @property
    def used(self) -> float:
        """Share of the codes that occur at all, mean over codebooks."""
        return sum(self.books) / len(self.books)

    @property
    def used_least(self) -> float:
        """The same of the codebook that uses fewest."""
        return min(self.books)

    @property
    def dead(self) -> tuple[int, ...]:
        """Codes of each codebook that never occur."""
        return tuple((self.counts == 0).sum(1).tolist())

    @property
    def perplexities(self) -> tuple[float, ...]:
        """exp of the entropy of the codes' frequencies, of each codebook: as many codes, all used alike, would say as much."""
        counts = self.counts.double()
        return tuple(torch.special.entr(counts / counts.sum(1, keepdim=True)).sum(1).exp().tolist())

    @property
    def perplexity(self) -> float:
        """Mean of `perplexities`."""
        return sum(self.perplexities) / len(self.perplexities)

    def by_book(self, name: str) -> dict[str, float]:
        """`books` as figures `name_book_1` ...; of a single codebook none, `used` says it."""
        return figures_by_book(name, self.books)


def figures_by_book(name: str, values: Sequence[float]) -> dict[str, float]:
    """A value of each codebook as figures `name_book_1` ...; of a single codebook none."""
    return {f"{name}_book_{n}": value for n, value in enumerate(values, 1)} if len(values) > 1 else {}


class CodebookConfig(Config):
    """One codebook of `size` vectors of `dim`.

    With `ema` the vectors follow the data as moving averages (`decay`), and a code whose moving count falls
    below `revive_below` times the count of a uniformly used code is replaced by a vector of the current
    batch. Without it they are parameters, learnt through `codebook_loss`.
    """

    size: int = Field(gt=1)
    dim: int = Field(gt=0)
    ema: bool = True
    decay: float = Field(default=0.99, gt=0, lt=1)
    revive_below: float = Field(default=0.1, ge=0)
    codebook_loss: float = Field(default=1.0, ge=0)
    commitment_loss: float = Field(default=0.25, ge=0)


class Codebook(nn.Module):
    """Nearest-neighbour codebook in squared distance.

    State: `embed` [size, dim]; with `ema` also the moving counts `cluster_size` [size], the moving sums
    `embed_avg` [size, dim] and the flag `inited` [1].
    """

    embed: Tensor
    cluster_size: Tensor
    embed_avg: Tensor
    inited: Tensor

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__()
        self.config = config
        embed = torch.empty(config.size, config.dim).uniform_(-1 / config.size, 1 / config.size)
        if config.ema:
            self.register_buffer("embed", embed)
            self.register_buffer("embed_avg", embed.clone())
            self.register_buffer("cluster_size", torch.zeros(config.size))
            self.register_buffer("inited", torch.zeros(1))
        else:
            self.embed = nn.Parameter(embed)

    def encode(self, x: Float[Tensor, "B D T"]) -> Int[Tensor, "B T"]:
        """Index of the nearest vector of each frame, [B, T]."""
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would choose other codes
            rows, embed = x.transpose(1, 2).float(), self.embed.float()  # [B, T, D]
            # argmin |x - e|^2 = argmin |e|^2 - 2 x.e : one matrix product, no [.., size, D] tensor
            return torch.argmin(embed.pow(2).sum(1) - 2 * rows @ embed.T, dim=-1)

    def decode(self, codes: Int[Tensor, "B T"]) -> Float[Tensor, "B D T"]:
        """The vectors of `codes`, [B, D, T]."""
        return F.embedding(codes, self.embed).transpose(1, 2)

    def forward(self, x: Float[Tensor, "B D T"]) -> Quantized:
        """Quantize; in training mode with `ema` the codebook also moves towards `x`."""
        x = x.float()
        if self.training and self.config.ema:
            self.start(x)
        codes = self.encode(x)
        values = self.decode(codes)
        loss = self.config.commitment_loss * F.mse_loss(x, values.detach())
        if not self.config.ema:
            loss = loss + self.config.codebook_loss * F.mse_loss(values, x.detach())
        if self.training and self.config.ema:
            self.follow(x.detach(), codes)
        return Quantized(x + (values - x).detach(), codes.unsqueeze(1), loss)

    @torch.no_grad()
    def go_on(self) -> None:
        """With `ema`: follow the data from the present vectors on, as if all were used alike; a release holds no moving sums."""
        self.cluster_size.zero_()
        self.inited.fill_(1)

    @property
    def begun(self) -> bool:
        """Whether there are moving sums to go on with."""
        return bool(self.cluster_size.any())

    @torch.no_grad()
    def start(self, x: Float[Tensor, "B D T"]) -> None:
        """With `ema`: before the first batch, take the vectors from it; after `go_on`, only the moving sums. Later: nothing."""
        if self.begun:
            return
        rows = rows_of_all(x.detach().transpose(1, 2).reshape(-1, self.config.dim))
        if not bool(self.inited):
            index = torch.randint(len(rows), (self.config.size,), device=rows.device)
            # a batch has fewer frames than the codebook has codes: jitter keeps the copies apart
            self.embed.copy_(rows[index] + 0.05 * rows.std(0) * torch.randn_like(self.embed))
        self.cluster_size.fill_(len(rows) / self.config.size)
        self.embed_avg.copy_(self.embed * self.cluster_size.unsqueeze(1))
        self.inited.fill_(1)

    @torch.no_grad()
    def follow(self, x: Float[Tensor, "B D T"], codes: Int[Tensor, "B T"]) -> None:
        """With `ema`: move the vectors of `codes` towards `x`, and exchange those that are hardly ever chosen."""
        # each process draws its own new vectors; DDP sends the first one's buffers to all before the next step
        rows = rows_of_all(x.transpose(1, 2).reshape(-1, self.config.dim))
        flat = rows_of_all(codes.reshape(-1))
        counts = torch.zeros_like(self.cluster_size).index_add_(0, flat, torch.ones_like(flat, dtype=x.dtype))
        sums = torch.zeros_like(self.embed_avg).index_add_(0, flat, rows)
        self.cluster_size.lerp_(counts, 1 - self.config.decay)
        self.embed_avg.lerp_(sums, 1 - self.config.decay)
        uniform = len(rows) / self.config.size
        alive = self.cluster_size > self.config.revive_below * uniform
        self.embed.copy_(
            torch.where(
                alive.unsqueeze(1), self.embed_avg / self.cluster_size.clamp_min(1e-12).unsqueeze(1), self.embed
            )
        )
        # a few at a time, so that one batch does not fill the codebook with its own frames
        dead = torch.nonzero(~alive).squeeze(1)[: max(1, len(rows) // 8)]
        if len(dead):
            index = torch.randint(len(rows), (len(dead),), device=rows.device)
            self.embed[dead] = rows[index]
            self.cluster_size[dead] = uniform
            self.embed_avg[dead] = rows[index] * uniform


class GroupResidualConfig(Config):
    """`num_layers` residual layers, each of `num_groups` codebooks over equal slices of the latent.

    Attributes:
        overlap: frames over which what a frame's codes say is spread, an odd number (`nn/overlap.py`). 1: each frame is what
            its own codes say, as published.
        sweeps: how often the search for overlapping codes goes over them.
    """

    num_layers: int = Field(default=2, gt=0)
    num_groups: int = Field(default=2, gt=0)
    codebook: CodebookConfig
    overlap: int = Field(default=1, gt=0)
    sweeps: int = Field(default=4, gt=0)

    @field_validator("overlap")
    @classmethod
    def _has_a_middle(cls, overlap: int) -> int:
        if overlap % 2 == 0:
            raise ValueError(f"{overlap} frames have no middle one; give an odd number")
        return overlap

    @property
    def num_codebooks(self) -> int:
        """K: codes per frame."""
        return self.num_layers * self.num_groups

    @property
    def dim(self) -> int:
        """D: width of the quantized latent."""
        return self.num_groups * self.codebook.dim


class GroupResidualQuantizer(nn.Module):
    """Codes [B, K, T] in the order layer 0 group 0, layer 0 group 1, layer 1 group 0, ..."""

    def __init__(self, config: GroupResidualConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(
            nn.ModuleList(Codebook(config.codebook) for _ in range(config.num_groups)) for _ in range(config.num_layers)
        )
        self.overlap = Overlap(config.overlap) if config.overlap > 1 else None

    def forward(self, x: Float[Tensor, "B D T"]) -> Quantized:
        """Quantize [B, D, T]; the loss is the mean over layers, or of the whole where codes overlap."""
        if self.overlap is not None:
            return self._together(x.float(), self.overlap)
        residual = x.float()
        codes, losses, total = [], [], torch.zeros_like(residual)
        for layer in self._books():
            parts = [book(part) for book, part in zip(layer, self._split(residual), strict=True)]
            values = torch.cat([part.values for part in parts], dim=1).detach()
            residual = residual - values
            total = total + values
            codes += [part.codes for part in parts]
            losses.append(torch.stack([part.loss for part in parts]).mean())
        return Quantized(x + (total - x).detach(), torch.cat(codes, dim=1), torch.stack(losses).mean())

    def encode(self, x: Float[Tensor, "B D T"]) -> Int[Tensor, "B K T"]:
        """Codes of latents."""
        if self.overlap is None:
            return self._nearest(x.float()).codes
        with torch.no_grad():
            return self.overlap.search(x.float(), self._nearest, self.config.sweeps).codes

    def decode(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B D T"]:
        """Latents of codes: the sum over layers of their vectors, spread where codes overlap."""
        decoded = [
            torch.cat([book.decode(c) for book, c in zip(layer, chosen, strict=True)], dim=1)
            for layer, chosen in zip(self._books(), self._by_layer(codes), strict=True)
        ]
        vectors = torch.stack(decoded).sum(0)
        return vectors if self.overlap is None else self.overlap.spread(vectors)

    @property
    def reach(self) -> int:
        """Frames on each side of a frame, besides its own latent, that its codes depend on."""
        return 0 if self.overlap is None else self.overlap.reach(self.config.sweeps)

    def _nearest(self, x: Tensor) -> Chosen:
        """Layer by layer, what is nearest to what is left of vectors [B, D, T]."""
        residual, codes = x, list[Tensor]()
        for layer in self._books():
            layer_codes = [book.encode(part) for book, part in zip(layer, self._split(residual), strict=True)]
            decoded = [book.decode(c) for book, c in zip(layer, layer_codes, strict=True)]
            residual = residual - torch.cat(decoded, dim=1)
            codes += layer_codes
        return Chosen(torch.stack(codes, dim=1), x - residual)

    def _together(self, x: Tensor, overlap: Overlap) -> Quantized:
        """Quantize with overlapping codes; in training mode with `ema` the codebooks also move to lessen the error."""
        book = self.config.codebook
        if self.training and book.ema and not all(each.begun for layer in self._books() for each in layer):
            self._start(x.detach())
        codes = self.encode(x.detach())
        values = self.decode(codes)
        loss = book.commitment_loss * F.mse_loss(x, values.detach())
        if not book.ema:
            loss = loss + book.codebook_loss * F.mse_loss(values, x.detach())
        if self.training and book.ema:
            step = self._split(overlap.correction(x.detach() - values))
            for layer, chosen in zip(self._books(), self._by_layer(codes), strict=True):
                for each, c, part in zip(layer, chosen, step, strict=True):
                    each.follow(each.decode(c) + part, c)
        return Quantized(x + (values - x).detach(), codes, loss)

    @torch.no_grad()
    def _start(self, x: Tensor) -> None:
        """Before the first batch: vectors of the layers as without overlap."""
        residual = x
        for layer in self._books():
            parts = self._split(residual)
            for book, part in zip(layer, parts, strict=True):
                book.start(part)
            decoded = [book.decode(book.encode(part)) for book, part in zip(layer, parts, strict=True)]
            residual = residual - torch.cat(decoded, dim=1)

    def _by_layer(self, codes: Tensor) -> list[tuple[Tensor, ...]]:
        """Of each layer the codes [B, T] of its codebooks."""
        return [layer.unbind(1) for layer in codes.split(self.config.num_groups, dim=1)]

    def _books(self) -> list[list[Codebook]]:
        return [list(cast("nn.ModuleList", layer)) for layer in self.layers]  # type: ignore[arg-type]

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.chunk(self.config.num_groups, dim=1)
