"""From logits to a code: guidance, temperature, top-k, top-p, one draw. Pure functions; randomness comes in as numbers.

The draw for a code is a function of the piece's seed and the place of the code in it, whatever else is in the batch and
on whatever device, so a piece sounds the same alone and in company.
"""

import hashlib

import torch
from torch import Tensor

UNIFORM_BLOCK = 256


def mix(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598): 1 is the conditional alone, 0 the unconditional.

    Args:
        conditional, unconditional: logits [B, V].
        guidance: weight g of g * conditional + (1 - g) * unconditional.
    """
    return guidance * conditional + (1.0 - guidance) * unconditional


def likeliest(logits: Tensor, temperature: float, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """The distribution that is sampled from, likeliest class first.

    Args:
        logits: [B, V]; minus infinity forbids a class.
        temperature: divides the logits; positive.
        top_k: how many classes stay; 0 keeps all.
        top_p: of those, the fewest classes that together hold this probability stay; 1 keeps all.

    Returns:
        probabilities [B, K] in falling order, each row summing to 1, and their classes [B, K].
    """
    size = logits.shape[-1]
    values, classes = logits.float().topk(min(top_k, size) if top_k else size, dim=-1)
    probabilities = (values / temperature).softmax(dim=-1)
    if top_p < 1.0:
        before = probabilities.cumsum(dim=-1) - probabilities
        before[..., 0] = 0.0  # rounding must not lose the likeliest
        probabilities = probabilities.where(before < top_p, 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return probabilities, classes


def sample(logits: Tensor, uniforms: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """One class per row.

    Args:
        logits: [B, V].
        uniforms: [B] numbers in [0, 1) that decide (`uniform_block`).
        temperature: 0 takes the likeliest class.
        top_k, top_p: as in `likeliest`.

    Returns:
        classes [B].
    """
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    probabilities, classes = likeliest(logits, temperature, top_k, top_p)
    cumulative = probabilities.cumsum(dim=-1)
    # Scaled by the last sum, which rounding keeps from being exactly 1; a class of probability 0 is never reached.
    target = uniforms[:, None].to(cumulative) * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, target, right=True)
    last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1
    return classes.gather(-1, index.minimum(last))[:, 0]


def redraw_repeats(drawn: Tensor, logits: Tensor, recent: Tensor, uniforms: Tensor, max_repeat: float) -> Tensor:
    """Repetition-aware sampling (arXiv 2406.05370): where a class has come too often, one from the whole distribution.

    Args:
        drawn: classes [B].
        logits: [B, V] that they were drawn from.
        recent: the latest classes [B, N], the drawn ones not among them.
        uniforms: [B] numbers in [0, 1) for the second draw.
        max_repeat: share of `recent` at which a class counts as too often.

    Returns:
        classes [B].
    """
    often = (recent == drawn[:, None]).float().mean(dim=-1) >= max_repeat
    return torch.where(often, sample(logits, uniforms, 1.0, 0, 1.0), drawn)


def uniform_block(seed: int, index: int, purpose: str = "codes") -> Tensor:
    """Numbers in [0, 1) for the codes of block `index` of a piece: [UNIFORM_BLOCK], drawn on the CPU everywhere.

    Args:
        seed: of the piece.
        index: of the block.
        purpose: `codes`, or `redraws` for those that are drawn a second time.
    """
    # Hashed, since neighbouring seeds and indices must not share a stream, nor codes and noise.
    digest = hashlib.blake2b(f"{purpose}:{seed}:{index}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    return torch.rand(UNIFORM_BLOCK, generator=generator)
