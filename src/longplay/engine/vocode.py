"""Codes or latents to sound, in windows, whole or as they come: the decoders of `tokenizer` and `codec`."""

from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor

from longplay.engine.windows import WindowPlan, stateless, stream_windows
from longplay.models.codec import Codec
from longplay.models.tokenizer import Tokenizer
from longplay.nn.spectral import SpectralDecoder

WINDOW_SECONDS = 5.0
# Around a window, and where two are cross-faded, for a decoder whose samples depend on all frames.
UNBOUNDED_SECONDS = 1.0
FADE_SECONDS = 0.1


def stream_decode(
    model: Tokenizer | Codec, frames: Iterable[Tensor], first_seconds: float | None = None, lag_seconds: float = 0.0
) -> Iterator[Tensor]:
    """Audio [B, 1, S] of codes [B, T] or [B, K, T] (tokenizer) or latents [B, D, T] (codec) as they come.

    A decoder with a finite receptive field gives what it gives in one run over the whole, but for rounding; phases that
    run on from frame to frame are handed from window to window.

    Args:
        model: in evaluation mode.
        frames: in pieces of any length.
        first_seconds: a first window so short, see `WindowPlan`; None: all are `WINDOW_SECONDS`.
        lag_seconds: see `WindowPlan`.
    """
    plan = decode_plan(model, first_seconds, lag_seconds)
    if not isinstance(model.decoder, SpectralDecoder):
        yield from stream_windows(stateless(model.decode), frames, plan)
        return
    synthesis = model.decoder.synthesis()
    for part in chain(stream_windows(stateless(model.decode_frames), frames, plan), [None]):
        with torch.inference_mode():
            wav = synthesis.finish() if part is None else synthesis.push(part)
        if wav.shape[-1]:
            yield wav.unsqueeze(1)


def decode(model: Tokenizer | Codec, frames: Tensor) -> Tensor:
    """Audio [B, 1, T * hop_length] of a whole piece: codes [B, T] or [B, K, T] (tokenizer) or latents [B, D, T] (codec)."""
    return torch.cat(list(stream_decode(model, [frames])), dim=-1)


def decode_plan(model: Tokenizer | Codec, first_seconds: float | None = None, lag_seconds: float = 0.0) -> WindowPlan:
    """The windows of `stream_decode`."""
    rate = model.config.frame_rate
    step, lag = round(WINDOW_SECONDS * rate), round(lag_seconds * rate)
    first_step = step if first_seconds is None else round(first_seconds * rate)
    context, fade = model.decoder.receptive_field, 0
    if context is None:
        context, fade = round(UNBOUNDED_SECONDS * rate), round(FADE_SECONDS * rate)
    ratio = 1 if isinstance(model.decoder, SpectralDecoder) else model.config.hop_length
    return WindowPlan(step, context, fade, ratio, first_step, lag=lag)
