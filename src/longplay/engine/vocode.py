"""Codes or latents to sound, in windows, whole or as they come: the decoders of `tokenizer` and `codec`."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from longplay.engine.windows import WindowPlan, WindowStream, run_stream, stateless
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
    for wav in run_stream(stateless(windows_of(model)), frames, DecodeStream(model, plan)):
        if wav.shape[-1]:
            yield wav


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


def windows_of(model: Tokenizer | Codec) -> Callable[[Tensor], Tensor]:
    """What is run over the windows of `decode_plan`: sound [B, 1, S], or what `DecodeStream` makes sound of."""
    return model.decode_frames if isinstance(model.decoder, SpectralDecoder) else model.decode


class DecodeStream(WindowStream):
    """Windows of `decode_plan`, and the sound [B, 1, S] that is made of them: phases run on from one to the next."""

    def __init__(self, model: Tokenizer | Codec, plan: WindowPlan) -> None:
        super().__init__(plan)
        self._synthesis = model.decoder.synthesis() if isinstance(model.decoder, SpectralDecoder) else None

    @torch.inference_mode()
    def take(self, made: Tensor) -> Tensor:
        """What is final of the sound, now that `windows_of` made this of the frames of `window`."""
        part = super().take(made)
        return part if self._synthesis is None else self._synthesis.push(part).unsqueeze(1)

    @torch.inference_mode()
    def rest(self) -> Tensor | None:
        """What the last frames still hold, if the piece had any."""
        return None if self._synthesis is None or not self.begun else self._synthesis.finish().unsqueeze(1)
