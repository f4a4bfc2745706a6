"""Reconstruction and adversarial losses of `tokenizer` and `codec`.

Source: multi-scale mel loss of Descript Audio Codec (arXiv 2306.06546), hinge GAN and feature matching of
SoundStream (arXiv 2107.03312), spectral convergence of Parallel WaveGAN (arXiv 1910.11480).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longplay.config import Config
from longplay.nn.mel import MelSpectrogram

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
    return torch.stack(
        [
            F.l1_loss(f, r.detach()) / r.detach().abs().mean().clamp_min(1e-3)
            for real_maps, fake_maps in zip(real, fake, strict=True)
            for r, f in zip(real_maps[:-1], fake_maps[:-1], strict=True)
        ]
    ).mean()
