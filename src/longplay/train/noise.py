"""Noise that lasts as long as what a flow's guess leaves of the latents (`Flow.noise`), measured on music."""

from collections.abc import Iterable

import torch
from torch import Tensor

from longplay.models.flow import Flow


def is_white(flow: Flow) -> bool:
    """Whether the noise of a flow with `noise_reach` has not been fitted yet: every frame's is its own."""
    return not bool(flow.noise_taps[:, : flow.config.noise_reach].any())


@torch.no_grad()
def fit_noise(flow: Flow, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Give the noise the spectrum over time and the likeness of channels that the guess's errors have, and measure how large they are.

    What the estimator has learnt of other noise is about other numbers: it begins again with nothing to say, which with this noise
    is right on average.

    Args:
        flow: with `noise_reach`, and a condition that is a guess.
        batches: codes [B, T] and latents [B, D, T * ratio] to fit, longer than the noise reaches to both sides.
    """
    reach, power, products, count = flow.config.noise_reach, torch.zeros(()), torch.zeros(()), 0
    for codes, latents in batches:
        rest = flow.normalize(latents) - flow.condition(codes, latents.shape[2])
        power = power + torch.fft.fft(rest, norm="ortho").abs().square().sum(0)
        products = products + torch.einsum("bdt,bet->de", rest, rest) / rest.shape[2]
        count += len(codes)
    power, spread = power / count, (products.diagonal() / count).sqrt().clamp_min(1e-3)
    flow.latent_spread.copy_(spread)
    shares, directions = torch.linalg.eigh(products / count / spread.outer(spread))
    flow.noise_mix.copy_(directions * shares.clamp_min(0).sqrt() @ directions.T)
    taps = torch.fft.fftshift(torch.fft.ifft(power.sqrt()).real, dim=1)
    middle = taps.shape[1] // 2
    taps = taps[:, middle - reach : middle + reach + 1] * torch.hann_window(2 * reach + 3, periodic=False)[1:-1]
    flow.noise_taps.copy_(taps / taps.square().sum(1, keepdim=True).sqrt().clamp_min(1e-6))
    flow.estimator.say_nothing()
