"""musicnn: music tags and embeddings (Pons and Serra 2019, "musicnn: pre-trained CNNs for music audio tagging").

wav [B, S] at 16 kHz -> log-mel patches [P, 187, 96] (3 s each) -> 50 tag probabilities and a 200-d embedding per patch.
Timbral filters (tall) and temporal filters (long) run side by side over the spectrogram, three residual convolutions
follow, then max and mean over time. It hears nothing above 8 kHz.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longplay.audio import Audio
from longplay.data.musicnn_weights import Training, read_tensors
from longplay.nn.mel import MelSpectrogram

SAMPLE_RATE = 16000
N_FFT, HOP_LENGTH, NUM_MELS = 512, 256, 96
PATCH_FRAMES = 187
TIMBRAL = ((7, 38, 204), (7, 67, 204))  # frames, mel bands, channels
TEMPORAL = ((128, 1, 51), (64, 1, 51), (32, 1, 51))
MIDDLE_CHANNELS, EMBEDDING_DIM, NUM_TAGS = 64, 200, 50
EPSILON = 1e-3  # of TensorFlow's batch normalisation

Wav = npt.NDArray[np.float32]


class LogMel(nn.Module):
    """wav [B, S] -> log10(1 + 10000 mel power) [B, T, 96], as librosa computes it."""

    def __init__(self) -> None:
        super().__init__()
        self.mel = MelSpectrogram(SAMPLE_RATE, N_FFT, HOP_LENGTH, NUM_MELS)

    def forward(self, wav: Tensor) -> Tensor:
        """Frames [B, T, 96], T = S // 256 + 1."""
        power = self.mel(self.mel.spectrum(wav).abs().square())
        # The models were trained on spectrograms stored in half precision.
        return torch.log10(10000 * power.half().float() + 1).mT


class ConvBlock(nn.Module):
    """Convolution over [B, 1, T, M] that keeps T and spans all or part of M, ReLU, batch normalisation."""

    def __init__(self, frames: int, bands: int, channels: int) -> None:
        super().__init__()
        self.padding = (0, 0, (frames - 1) // 2, frames // 2)
        self.conv = nn.Conv2d(1, channels, (frames, bands))
        self.norm = nn.BatchNorm2d(channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, T, M] -> [B, T, channels], the maximum over what is left of M."""
        return self.norm(F.relu(self.conv(F.pad(x, self.padding)))).amax(3).mT


class Musicnn(nn.Module):
    """The tagger; random weights until `load` (or `Musicnn.pretrained`)."""

    def __init__(self) -> None:
        super().__init__()
        front_dim = sum(channels for *_, channels in TIMBRAL + TEMPORAL)
        pooled_dim = 2 * (front_dim + 3 * MIDDLE_CHANNELS)
        self.input_norm = nn.BatchNorm2d(1, eps=EPSILON)
        self.front = nn.ModuleList(ConvBlock(*size) for size in TIMBRAL + TEMPORAL)
        self.middle = nn.ModuleList(
            ConvBlock(7, dim, MIDDLE_CHANNELS) for dim in (front_dim, MIDDLE_CHANNELS, MIDDLE_CHANNELS)
        )
        self.pooled_norm = nn.BatchNorm1d(pooled_dim, eps=EPSILON)
        self.embed = nn.Linear(pooled_dim, EMBEDDING_DIM)
        self.embedding_norm = nn.BatchNorm1d(EMBEDDING_DIM, eps=EPSILON)
        self.tag = nn.Linear(EMBEDDING_DIM, NUM_TAGS)

    @classmethod
    def pretrained(cls, training: Training) -> "Musicnn":
        """The published model, ready for inference.

        Raises:
            DownloadError: the weights cannot be fetched.
        """
        model = cls()
        model.load(read_tensors(training))
        return model.eval()

    def load(self, tensors: dict[str, npt.NDArray[np.float32]]) -> None:
        """Take weights by their TensorFlow names, which only count: conv2d, conv2d_1, ... in the order of the graph."""
        blocks = [*self.front, *self.middle]
        norms = [self.input_norm, *(block.norm for block in blocks), self.pooled_norm, self.embedding_norm]
        layers = [*(("conv2d", i, block.conv) for i, block in enumerate(blocks))]
        layers += [("dense", i, layer) for i, layer in enumerate((self.embed, self.tag))]
        with torch.no_grad():
            for kind, i, layer in layers:
                kernel = torch.from_numpy(tensors[f"{_numbered(kind, i)}/kernel"])
                layer.weight.copy_(kernel.permute(3, 2, 0, 1) if kind == "conv2d" else kernel.mT)
                layer.bias.copy_(torch.from_numpy(tensors[f"{_numbered(kind, i)}/bias"]))
            for i, norm in enumerate(norms):
                values = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
                for value, name in zip(values, ("gamma", "beta", "moving_mean", "moving_variance"), strict=True):
                    value.copy_(torch.from_numpy(tensors[f"{_numbered('batch_normalization', i)}/{name}"]))

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel patches [P, 187, 96] -> tag probabilities [P, 50] and embeddings [P, 200]."""
        x = self.input_norm(patches.unsqueeze(1))
        x = torch.cat([block(x) for block in self.front], dim=2)  # [P, T, front_dim]
        stages = [x]
        for i, block in enumerate(self.middle):
            x = block(x.unsqueeze(1)) + (x if i else 0)
            stages.append(x)
        features = torch.cat(stages, dim=2)
        # TensorFlow flattens [features, (max, mean)].
        pooled = torch.stack([features.amax(1), features.mean(1)], dim=2).flatten(1)
        embedding = self.embedding_norm(F.relu(self.embed(self.pooled_norm(pooled))))
        return torch.sigmoid(self.tag(embedding)), embedding


@dataclass(frozen=True)
class Heard:
    """What musicnn makes of a set of clips.

    Attributes:
        embeddings: [N * P, 200] of the MTT model, one per 3 s patch, in the order of the clips.
        tags: [N, 100] mean probabilities per clip, the 50 of MTT and then the 50 of MSD.
    """

    embeddings: npt.NDArray[np.float32]
    tags: npt.NDArray[np.float32]


class Listener:
    """Both published models behind one call."""

    def __init__(self, mtt: Musicnn, msd: Musicnn, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.log_mel = LogMel().to(self.device)
        self.mtt, self.msd = mtt.to(self.device).eval(), msd.to(self.device).eval()

    @classmethod
    def pretrained(cls, device: str | torch.device = "cpu") -> "Listener":
        """With the published weights.

        Raises:
            DownloadError: they cannot be fetched.
        """
        return cls(Musicnn.pretrained("MTT"), Musicnn.pretrained("MSD"), device)

    @torch.inference_mode()
    def hear(self, clips: Iterable[Wav], sample_rate: int) -> Heard:
        """Embeddings and tags of mono clips [S] of 3 s and more.

        Raises:
            ValueError: a clip is too short for one patch.
        """
        embeddings: list[Tensor] = []
        tags: list[Tensor] = []
        for clip in clips:
            patches = self.patches(clip, sample_rate)
            (mtt_tags, embedding), (msd_tags, _) = self.mtt(patches), self.msd(patches)
            embeddings.append(embedding)
            tags.append(torch.cat([mtt_tags.mean(0), msd_tags.mean(0)]))
        return Heard(torch.cat(embeddings).cpu().numpy(), torch.stack(tags).cpu().numpy())

    @torch.inference_mode()
    def embed(self, clips: Iterable[Wav], sample_rate: int) -> npt.NDArray[np.float32]:
        """The embeddings of `hear` alone [N * P, 200], in half the time."""
        return torch.cat([self.mtt(self.patches(clip, sample_rate))[1] for clip in clips]).cpu().numpy()

    def patches(self, clip: Wav, sample_rate: int) -> Tensor:
        """Log-mel patches [P, 187, 96] of a clip [S], side by side; what is left over at the end is dropped.

        Raises:
            ValueError: the clip is shorter than one patch.
        """
        wav = Audio(clip[None], sample_rate).resample(SAMPLE_RATE).wav
        frames = self.log_mel(torch.from_numpy(wav).to(self.device))[0]
        count = len(frames) // PATCH_FRAMES
        if not count:
            raise ValueError(f"clip of {wav.shape[1] / SAMPLE_RATE:.2f} s: musicnn needs 3 s")
        return frames[: count * PATCH_FRAMES].unflatten(0, (count, PATCH_FRAMES))


def _numbered(name: str, index: int) -> str:
    return f"{name}_{index}" if index else name
