"""Sample audio and spectrogram pictures of a run."""

import errno
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch import Tensor

from longplay.report import save_figure


def write_sample(stem: Path, original: Tensor | None, made: Tensor, sample_rate: int) -> None:
    """Write `stem.wav` (made), `stem.original.wav` and `stem.png`, their spectrograms one above the other.

    Args:
        stem: path without suffix; its directory is made.
        original: samples [S], or None where there is nothing to compare with.
        made: samples [S].
        sample_rate: in Hz.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    signals = {"original": original, "made": made} if original is not None else {"made": made}
    wavs = {title: signal.float().clamp(-1, 1).numpy() for title, signal in signals.items()}
    for title, wav in wavs.items():
        name = stem.with_name(stem.name + (".original.wav" if title == "original" else ".wav"))
        try:
            sf.write(name, wav, sample_rate, subtype="PCM_16")
        except sf.LibsndfileError as error:  # a full disk, as the rest of a run hears of it
            raise OSError(errno.EIO, error.error_string, str(name)) from None
    draw_spectrograms(wavs, sample_rate, stem.with_name(stem.name + ".png"))


def draw_spectrograms(wavs: Mapping[str, np.ndarray], sample_rate: int, path: Path) -> None:
    """A picture with the spectrogram of each of `wavs`, samples [S] by title, one above the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6 * len(wavs)), layout="constrained")
    for row, (title, wav) in enumerate(wavs.items(), start=1):
        spectrum = torch.stft(
            torch.from_numpy(wav), 2048, 512, window=torch.hann_window(2048), pad_mode="constant", return_complex=True
        ).abs()
        axes = figure.add_subplot(len(wavs), 1, row)
        axes.imshow(
            20 * np.log10(spectrum.numpy() + 1e-4),
            origin="lower",
            aspect="auto",
            vmin=-60,
            vmax=40,
            extent=(0, len(wav) / sample_rate, 0, sample_rate / 2000),
        )
        axes.set(title=title, xlabel="seconds", ylabel="kHz")
    save_figure(figure, path, dpi=80)
