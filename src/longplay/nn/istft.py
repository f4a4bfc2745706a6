"""Spectra in and out: framing, STFT, its inverse, and the heads that make a spectrum of features.

Frame t covers the `n_fft` samples around the t-th hop ("same" framing: as many frames as hops, nothing before or after).
Source: Vocos (arXiv 2306.00814), CHECKPOINTS.md 3.6; `PhaseLockedHead` is ours.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

BESIDE = 4  # bins from the middle of a Hann window's main lobe to beside it
# Measured (docs/experiments.md, 2026-11-23): the least that keeps noise from ringing. Radians; where a peak rises by less
# than the first it strays so far, by more than the second not at all (nepers); frames until the same strays come again.
STRAY = 0.7
STRAY_BETWEEN = (0.5, 1.5)
STRAY_FRAMES = 256
HANN_SPREAD = 0.25645  # variance of the Gaussian nearest to a Hann window, in squares of its length (arXiv 1609.00291)


def stft(wav: Float[Tensor, "B S"], window: Tensor, hop_length: int) -> Complex[Tensor, "B F T"]:
    """STFT with "same" framing: T = ceil(S / hop_length), F = n_fft / 2 + 1. Zero padded at both ends."""
    n_fft = len(window)
    frames = -(-wav.shape[-1] // hop_length)
    left = (n_fft - hop_length) // 2
    right = (frames - 1) * hop_length + n_fft - left - wav.shape[-1]
    wav = F.pad(wav, (left, right))
    return torch.stft(wav, n_fft, hop_length, window=window, center=False, return_complex=True)


def istft(spectrum: Complex[Tensor, "B F T"], window: Tensor, hop_length: int) -> Float[Tensor, "B S"]:
    """Inverse of `stft`: S = T * hop_length samples, divided by the overlapped squared window."""
    overlap = OverlapAdd(window, hop_length)
    return torch.cat((overlap.push(spectrum), overlap.finish()), dim=-1)


class OverlapAdd:
    """`istft` of frames that come piece by piece; remembers the n_fft - hop_length samples that still grow."""

    def __init__(self, window: Tensor, hop_length: int) -> None:
        self._window = window
        self._hop = hop_length
        self._drop = (len(window) - hop_length) // 2  # samples before the first hop
        self._tail: Tensor | None = None  # [2, B, n_fft - hop_length]: samples, and the squared window beneath them

    def push(self, spectrum: Complex[Tensor, "B F T"]) -> Float[Tensor, "B S"]:
        """The samples that no later frame changes."""
        n_fft = len(self._window)
        count = spectrum.shape[-1]
        frames = torch.fft.irfft(spectrum, n_fft, dim=1) * self._window.unsqueeze(1)  # [B, n_fft, T]
        squares = self._window.square().view(1, -1, 1).expand(len(frames), n_fft, count)
        both = torch.stack([self._overlapped(x) for x in (frames, squares)])
        if self._tail is not None:
            both = torch.cat((both[..., : n_fft - self._hop] + self._tail, both[..., n_fft - self._hop :]), dim=-1)
        self._tail = both[..., count * self._hop :]
        return self._divided(both[..., : count * self._hop])

    def finish(self) -> Float[Tensor, "B S"]:
        """The rest of the last frames, to the end of their hops; nothing if there were none."""
        if self._tail is None:
            return torch.zeros(1, 0, device=self._window.device)
        return self._divided(self._tail[..., : (len(self._window) - self._hop) // 2])

    def _overlapped(self, frames: Tensor) -> Tensor:
        length = (frames.shape[-1] - 1) * self._hop + frames.shape[1]
        return F.fold(frames, (1, length), (1, frames.shape[1]), stride=(1, self._hop))[:, 0, 0]

    def _divided(self, both: Tensor) -> Tensor:
        dropped = min(self._drop, both.shape[-1])
        self._drop -= dropped
        wav, envelope = both[..., dropped:]
        return wav / envelope.clamp_min(1e-11)


class ISTFTHead(nn.Module):
    """Linear to magnitude and phase, then the inverse STFT.

    The phase is absolute, from features that do not know the time: a steady sound whose features stand still becomes the
    same frame again and again, a hum at the frame rate. The published decoder lives with it; see `PhaseLockedHead`.
    """

    window: Tensor

    def __init__(self, dim: int, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.out = nn.Linear(dim, n_fft + 2)
        self.register_buffer("window", torch.hann_window(n_fft))

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B S"]:
        """Features [B, T, D] to samples [B, T * hop_length]."""
        with torch.autocast(x.device.type, enabled=False):
            log_magnitude, phase = F.linear(x.float(), self.out.weight.float(), self.out.bias.float()).mT.chunk(2, 1)
            return istft(torch.polar(log_magnitude.exp().clamp(max=100.0), phase), self.window.float(), self.hop_length)


class PhaseLockedHead(nn.Module):
    """Linear to magnitude alone; the phase follows from the magnitudes of the frames, then the inverse STFT.

    The gradient of a phase in time and in frequency is that of the log-magnitude in frequency and in time (exactly for a
    Gaussian window; the Hann window is close: phase gradient heap integration, arXiv 1609.00291). Each peak of a frame
    takes the phase of its bin in the frame before and goes on at its own frequency; the bins around it follow their peak,
    so that a partial stays one partial (identity phase locking of the phase vocoder, Laroche and Dolson 1999). A peak that
    hardly rises above its surroundings is noise, not a partial: its phase strays a little from frame to frame, or it would
    ring on as a tone.

    From the true magnitudes this gives back music at a spectral convergence of 0.31 (docs/experiments.md, 2026-11-22),
    and a steady sound needs steady features only, where a head that says phases hums at the frame rate.

    `frames` sees a frame and its neighbours, `Synthesis` carries phases and the overlap from piece to piece.
    """

    window: Tensor
    start: Tensor
    bin_advance: Tensor

    def __init__(self, dim: int, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.out = nn.Linear(dim, n_fft // 2 + 1)
        bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64)
        golden = bins * math.pi * (math.sqrt(5) - 1)  # no two bins start alike, and no start is a click
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("start", (golden % (2 * math.pi)).float(), persistent=False)
        advance = 2 * math.pi * hop_length / n_fft * bins
        self.register_buffer("bin_advance", (advance % (2 * math.pi)).float(), persistent=False)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B S"]:
        """Features [B, T, D] to samples [B, T * hop_length]; gradients reach the magnitudes, not the phases."""
        synthesis = Synthesis(self)
        return torch.cat((synthesis.push(self.frames(x)), synthesis.finish()), dim=-1)

    def magnitude(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B F T"]:
        """The magnitudes alone, F = n_fft / 2 + 1."""
        return self._logarithm(x).exp()

    def frames(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B P T"]:
        """What `Synthesis` needs, P = 3 F: log-magnitude, advance since the frame before, phase along the frequencies.

        A frame depends on its own features and those of its two neighbours.
        """
        logarithm = self._logarithm(x)
        with torch.no_grad():
            level = logarithm.detach()
            ratio = self.hop_length / (HANN_SPREAD * self.n_fft)
            advance = self.bin_advance.unsqueeze(1) + ratio * _slope(level, 1)
            advance = (advance + F.pad(advance, (1, 0), mode="replicate")[..., :-1]) / 2
            slope = -math.pi - _slope(level, 2) / ratio
            along = ((slope + F.pad(slope, (0, 0, 1, 0))[:, :-1]) / 2).cumsum(1)
        return torch.cat((logarithm, advance, along), dim=1)

    def _logarithm(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            logarithm = F.linear(x.float(), self.out.weight.float(), self.out.bias.float()).mT
            return logarithm.clamp(max=math.log(self.n_fft))  # four times a sine of full scale


class Synthesis:
    """Frames of a `PhaseLockedHead`, piece by piece, to samples: holds the phases and the overlap of the last frame."""

    def __init__(self, head: PhaseLockedHead) -> None:
        self._bins = len(head.start)
        self._phase = head.start
        noise = torch.randn(STRAY_FRAMES, self._bins, generator=torch.Generator().manual_seed(0))
        self._noise = noise.to(head.start.device)
        self._frame = 0
        self._overlap = OverlapAdd(head.window.float(), head.hop_length)

    def push(self, frames: Float[Tensor, "B P T"]) -> Float[Tensor, "B S"]:
        """The samples that no later frame changes."""
        with torch.autocast(frames.device.type, enabled=False):
            logarithm, advance, along = frames.float().split(self._bins, dim=1)
            with torch.no_grad():
                phase = self._integrate(logarithm, advance, along)
            return self._overlap.push(torch.polar(logarithm.exp(), phase))

    def finish(self) -> Float[Tensor, "B S"]:
        """The rest of the last frames, to the end of their hops."""
        return self._overlap.finish()

    def _integrate(self, logarithm: Tensor, advance: Tensor, along: Tensor) -> Tensor:
        peaks = _nearest_peak(logarithm.detach())
        relative = (along - along.gather(1, peaks)).unbind(-1)
        frames = torch.arange(self._frame, self._frame + advance.shape[-1]) % STRAY_FRAMES
        self._frame += len(frames)
        advance = advance + self._noise[frames].mT * _strays(logarithm.detach()).gather(1, peaks)
        phase = self._phase.expand(len(advance), -1)
        path = []
        for peak, step, offset in zip(peaks.unbind(-1), advance.unbind(-1), relative, strict=True):
            phase = torch.remainder((phase + step).gather(1, peak) + offset, 2 * math.pi)
            path.append(phase)
        self._phase = phase
        return torch.stack(path, dim=-1)


def _slope(x: Tensor, dim: int) -> Tensor:
    """Central differences, zero at both ends."""
    inner = (x.narrow(dim, 2, x.shape[dim] - 2) - x.narrow(dim, 0, x.shape[dim] - 2)) / 2 if x.shape[dim] > 2 else None
    if inner is None:
        return torch.zeros_like(x)
    return F.pad(inner, (1, 1) if dim == x.ndim - 1 else (0, 0, 1, 1))


def _nearest_peak(level: Tensor) -> Tensor:
    """The bin [B, F, T] of the local maximum over frequency that is nearest to each bin; bin 0 counts as one."""
    bins = level.shape[1]
    index = torch.arange(bins, device=level.device).view(1, -1, 1)
    inner = level[:, 1:-1]
    peak = F.pad((inner >= level[:, :-2]) & (inner > level[:, 2:]), (0, 0, 1, 1))
    far = 2 * bins
    below = torch.where(peak, index, index.new_zeros(())).cummax(1).values
    above = torch.where(peak, index, far).flip(1).cummin(1).values.flip(1)
    return torch.where(index - below <= above - index, below, above)


def _strays(level: Tensor) -> Tensor:
    """Radians [B, F, T] that the phase of a peak strays a frame, by how far it rises above the bins beside its main lobe."""
    padded = F.pad(level, (0, 0, BESIDE, BESIDE), mode="replicate")
    rises = level - (padded[:, : -2 * BESIDE] + padded[:, 2 * BESIDE :]) / 2
    low, high = STRAY_BETWEEN
    return STRAY * ((high - rises) / (high - low)).clamp(0, 1)
