"""What an `lm` hears and says in float32, by which its other forms are made (`quantize`) and judged (`compare`, `says`).

A float32 model of half a billion parameters makes two or three codes a second here. So every text is generated from at
once, with the piece that forms are judged on among them, and what float32 says of that one is read off in one pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from longplay.control import MIDDLE_BPM, Control
from longplay.engine.decode import generate
from longplay.engine.piece import Piece, RowBuilder
from longplay.engine.prefill import prefill
from longplay.engine.sampling import mix
from longplay.models.lm import LM
from longplay.nn.decoder import Decoder, Projection
from longplay.nn.graphed import step
from longplay.nn.linear import Dense, Weights
from longplay.prompt import GenerationOptions

KEPT_INPUTS = 256
_PREFIX_INPUTS = 32
_ROWS = 2  # of a piece, with guidance
_OPTIONS = GenerationOptions()


@dataclass(frozen=True, eq=False)
class Listening:
    """What was heard.

    Attributes:
        lm: in float32, not prepared.
        inputs: of each projection, [M, in].
        piece: another one, whose inputs are not among them.
        codes: what float32 made of it, [T].
    """

    lm: LM
    inputs: Mapping[str, Tensor]
    piece: Piece
    codes: Tensor

    @cached_property
    def logits(self) -> Tensor:
        """What float32 says before each code, guidance mixed in, [T, V]."""
        return says(self.lm, self.lm.decoder(), self.piece, self.codes, at_once=True)


@dataclass(frozen=True)
class Quality:
    """How close one form of a model is to another, over the codes of a piece.

    Attributes:
        kl: mean Kullback-Leibler divergence of the distributions that codes are drawn from, in nats.
        top_overlap: share of the likeliest `top_k` codes that both agree on.
        likeliest: share of steps with the same likeliest code.
    """

    kl: float
    top_overlap: float
    likeliest: float


@torch.inference_mode()
def listen(lm: LM, texts: Sequence[Sequence[int]], frames: int, most: int = KEPT_INPUTS) -> Listening:
    """Keep inputs of every projection of `lm.linears()` while pieces are generated, prefixes included.

    Args:
        lm: in float32 on the CPU, not prepared.
        texts: ids of each, at least one.
        frames: codes of each piece.
        most: inputs to keep; a few more than these are.
    """
    pieces = [steady_piece(lm, ids, frames, seed=0) for ids in texts] + [steady_piece(lm, texts[0], frames, seed=1)]
    kept: dict[str, list[Tensor]] = {name: [] for name, _ in lm.linears()}
    watched = _ROWS * len(texts)
    every = max(1, watched * frames // most)

    def watch(name: str, weights: Weights) -> Projection:
        projection, calls = Dense(weights), 0

        def run(x: Tensor) -> Tensor:
            nonlocal calls
            number = calls - len(pieces)  # first come the prefixes, one after the other, then steps of all pieces
            calls += 1
            if calls <= len(texts):
                kept[name].append(x[:: max(1, len(x) // _PREFIX_INPUTS)].clone())
            elif number >= 0 and number % every == 0:
                kept[name].append(x[:watched].clone())
            return projection(x)

        return run

    lm.inference = lm.decoder({name: watch(name, weights) for name, weights in lm.linears()})
    try:
        codes = torch.cat(list(generate(lm, pieces, _OPTIONS)), dim=1)
    finally:
        lm.inference = None
    return Listening(lm, {name: torch.cat(parts) for name, parts in kept.items()}, pieces[-1], codes[-1])


def steady_piece(lm: LM, ids: Sequence[int], frames: int, seed: int) -> Piece:
    """One of exactly `frames` codes, with a pulse where the model takes one."""
    control = Control.steady(MIDDLE_BPM) if lm.config.control else None
    return Piece(tuple(ids), frames, seed, min_frames=frames, control=control)


@torch.inference_mode()
def compare(forms: Mapping[str, Decoder], heard: Listening, at_once: bool = False) -> dict[str, Quality]:
    """How close each of `forms` is to float32 on the piece of `heard`.

    Args:
        forms: decoders of its lm by name.
        heard: in float32.
        at_once: let them read all codes at once, which says the same of forms that do not round what they are given.
    """
    return {
        name: closeness(heard.logits, says(heard.lm, decoder, heard.piece, heard.codes, at_once))
        for name, decoder in forms.items()
    }


@torch.inference_mode()
def says(
    lm: LM,
    decoder: Decoder,
    piece: Piece,
    codes: Tensor,
    at_once: bool = False,
    cache_dtype: torch.dtype = torch.float32,
) -> Tensor:
    """What one form of an lm says before each code of a piece, guidance mixed in, [T, V].

    Args:
        lm: whose embeddings are heard.
        decoder: of it.
        piece: without a prompt.
        codes: [T]; of a model that was trained on windows no more count than those hold.
        at_once: see `compare`.
        cache_dtype: of keys and values.
    """
    codes = codes[: lm.config.context_frames].to(lm.audio_head.bias.device)
    builder = RowBuilder(lm, piece, "none")
    cache = lm.cache(_ROWS, builder.max_positions(len(codes)), cache_dtype)
    if at_once:
        rows = builder.rows(codes[:-1], 0, guided=True)
        states = decoder(pad_sequence(rows, batch_first=True), cache)
        before = [state[len(row) - len(codes) : len(row)] for state, row in zip(states, rows, strict=True)]
        conditional, unconditional = decoder.head(torch.cat(before)).float().chunk(_ROWS)
    else:
        made = [prefill(decoder, builder.rows(codes[:0], 0, guided=True), cache)]
        said = builder.said(0, len(codes)).expand(len(codes), -1)
        for number, code in enumerate(codes[:-1], 1):
            inputs = lm.audio_embedding(code).repeat(_ROWS, 1, 1)
            inputs[0] += said[number]
            made.append(step(decoder, inputs, cache))
        conditional, unconditional = torch.stack(made, dim=1).float()
    return mix(conditional, unconditional, _OPTIONS.guidance)


def closeness(exact: Tensor, other: Tensor) -> Quality:
    """How close `other` logits [T, V] are to `exact` ones."""
    wanted, found = exact.log_softmax(dim=-1), other.log_softmax(dim=-1)
    kl = (wanted.exp() * (wanted - found)).sum(dim=-1).mean()
    top_k = min(_OPTIONS.top_k, exact.shape[-1])
    ours = torch.zeros_like(exact, dtype=torch.bool).scatter_(1, exact.topk(top_k).indices, True)
    agreed = ours.gather(1, other.topk(top_k).indices).float().mean()
    likeliest = (exact.argmax(dim=-1) == other.argmax(dim=-1)).float().mean()
    return Quality(float(kl), float(agreed), float(likeliest))
