"""Reconstruction and adversarial losses of `tokenizer` and `codec`.

Source: multi-scale mel loss of Descript Audio Codec (arXiv 2306.06546), hinge GAN and feature matching of
SoundStream (arXiv 2107.03312), spectral convergence of Parallel WaveGAN (arXiv 1910.11480).
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.istft import stft
from longplay.nn.mel import MelSpectrogram
from longplay.nn.whole_batch import fixed_mean_of_all, mean_of_all

MIN_HZ = 30.0  # nobody hears what is below
MIN_PEAK = 0.3  # magnitude of a partial at about -65 dB of full scale: below it is silence

Maps = list[list[Tensor]]  # per discriminator: its feature maps, the last one being the scores


class ReconstructionConfig(Config):
    """STFT sizes and the weights of the terms."""

    n_ffts: tuple[int, ...] = (256, 512, 1024, 2048)
    mel: float = 15.0
    magnitude: float = 1.0
    complex: float = 1.0


class ReconstructionLoss(nn.Module):
    """Mean over STFT sizes of log-mel L1, spectral convergence and complex L1.

    The complex term ties the phase where there is energy; the others alone leave it free.
    """

    def __init__(self, config: ReconstructionConfig, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        self.scales = nn.ModuleList(
            MelSpectrogram(sample_rate, n_fft, n_fft // 4, num_mels=max(10, n_fft // 16)) for n_fft in config.n_ffts
        )

    def forward(self, estimate: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Each weighted term, a scalar, of two signals [B, 1, S]."""
        terms = {"mel": [], "magnitude": [], "complex": []}  # type: dict[str, list[Tensor]]
        for scale in self.scales:
            assert isinstance(scale, MelSpectrogram)
            a, b = scale.spectrum(estimate[:, 0].float()), scale.spectrum(target[:, 0].float())
            a_magnitude, b_magnitude = (torch.sqrt(x.real**2 + x.imag**2 + 1e-9) for x in (a, b))
            a_mel, b_mel = (scale(m).clamp_min(1e-5).log10() for m in (a_magnitude, b_magnitude))
            level = b_magnitude.square().sum((1, 2)).sqrt().clamp_min(1e-2)
            terms["mel"].append(F.l1_loss(a_mel, b_mel))
            terms["magnitude"].append(((a_magnitude - b_magnitude).square().sum((1, 2)).sqrt() / level).mean())
            difference = torch.view_as_real(a - b).square().sum((1, 2, 3)).clamp_min(1e-12).sqrt()
            terms["complex"].append((difference / level).mean())
        weights = {"mel": self.config.mel, "magnitude": self.config.magnitude, "complex": self.config.complex}
        return {name: weights[name] * torch.stack(values).mean() for name, values in terms.items() if weights[name]}


class SpectrumConfig(Config):
    """What `SpectrumLoss` weighs.

    Attributes:
        square, absolute: weights of the squared and the absolute error.
        floor: share of the loudest partial nearby, below which everything sounds alike.
        knee_hz: above it, frequencies count by their octave; below it, by their Hertz.
        mel: weight of the log10-mel distance, to which everything above 1e-5 sounds.
        convergence: weight of the spectral convergence, to which the loudest partials sound most.
        sustained: weight of the squared error of what lasts, the mean log-magnitude over a third of a second: pitches last, noise does not.
        steadiness: weight of the change of the latents from frame to frame, against their variance. More of it gives
            codes that stay where the sound stays, which are easier for the lm.
    """

    square: float = Field(default=3.0, ge=0)
    absolute: float = Field(default=0.9, ge=0)
    floor: float = Field(default=0.02, gt=0)
    knee_hz: float = Field(default=400.0, gt=0)
    mel: float = Field(default=0.0, ge=0)
    convergence: float = Field(default=0.0, ge=0)
    sustained: float = Field(default=0.0, ge=0)
    steadiness: float = Field(default=0.5, ge=0)


class SpectrumLoss(nn.Module):
    """Magnitudes against those of the recording, as a decoder's head makes them, without a waveform.

    Only partials within `floor` of the loudest one nearby (a second) count, so that the codes spend themselves on what
    is heard as pitch and chord. A loss on waveforms of codes without phase teaches envelopes and noise instead, since
    no decoder can guess the phase that it would need to be right (docs/experiments.md, 2026-11-22).
    """

    window: Tensor
    weight: Tensor

    def __init__(self, config: SpectrumConfig, n_fft: int, hop_length: int, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        self.hop_length = hop_length
        self.nearby = 2 * round(sample_rate / hop_length / 2) + 1
        frequencies = torch.arange(n_fft // 2 + 1) * sample_rate / n_fft
        weight = torch.where(frequencies < MIN_HZ, 0.0, 1 / (frequencies + config.knee_hz))
        self.register_buffer("weight", (weight / weight.sum()).view(1, -1, 1), persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.mels = MelSpectrogram(sample_rate, n_fft, hop_length, num_mels=max(10, n_fft // 16))

    def forward(self, magnitude: Tensor, latents: Tensor, wav: Tensor) -> dict[str, Tensor]:
        """Each weighted term, a scalar, of magnitudes [B, F, T], latents [B, D, T] and the recording [B, 1, S]."""
        target = stft(wav[:, 0].float(), self.window, self.hop_length).abs()
        half = self.nearby // 2
        peaks = F.pad(target.amax(1, keepdim=True), (half, half), mode="replicate")
        loudest = F.max_pool1d(peaks, self.nearby, 1).clamp_min(MIN_PEAK)
        made, real = ((m / loudest + self.config.floor).log() for m in (magnitude, target))
        error = made - real
        both = self.config.square * error.square() + self.config.absolute * error.abs()
        lasting = F.avg_pool1d(error, min(self.nearby // 3, error.shape[-1]), stride=self.nearby // 12)
        latents = latents.float()
        change = mean_of_all(latents.diff(dim=-1).square().mean())
        centre = fixed_mean_of_all(latents.mean((0, 2), keepdim=True))
        variance = mean_of_all((latents - centre).square().mean())
        made, real = (self.mels(m).clamp_min(1e-5).log10() for m in (magnitude, target))
        level = target.square().sum((1, 2)).sqrt().clamp_min(1e-2)
        convergence = (magnitude - target).square().sum((1, 2)).clamp_min(1e-12).sqrt() / level
        terms = {
            "spectrum": (both * self.weight).sum(1).mean(),
            "sustained": self.config.sustained * (lasting.square() * self.weight).sum(1).mean(),
            "mel": self.config.mel * F.l1_loss(made, real),
            "convergence": self.config.convergence * convergence.mean(),
            "steadiness": self.config.steadiness * change / variance.clamp_min(1e-8),
        }
        return {name: term for name, term in terms.items() if getattr(self.config, name, 1.0)}


def discriminator_loss(real: Maps, fake: Maps) -> Tensor:
    """Hinge loss, mean over discriminators."""
    return torch.stack(
        [F.relu(1 - r[-1]).mean() + F.relu(1 + f[-1]).mean() for r, f in zip(real, fake, strict=True)]
    ).mean()


def generator_loss(fake: Maps) -> Tensor:
    """What the generator pays for being found out, mean over discriminators."""
    return torch.stack([F.relu(1 - f[-1]).mean() for f in fake]).mean()


def feature_matching_loss(real: Maps, fake: Maps) -> Tensor:
    """L1 of the inner feature maps relative to their size, mean over maps and discriminators."""
    pairs = [
        (r.detach(), f)
        for real_maps, fake_maps in zip(real, fake, strict=True)
        for r, f in zip(real_maps[:-1], fake_maps[:-1], strict=True)
    ]
    sizes = mean_of_all(torch.stack([r.abs().mean() for r, _ in pairs])).clamp_min(1e-3)
    return torch.stack([F.l1_loss(f, r) / size for (r, f), size in zip(pairs, sizes, strict=True)]).mean()
