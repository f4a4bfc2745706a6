"""Audio that is wrong in a known way: what a score must tell from music."""

import numpy as np
import numpy.typing as npt

CHUNK_SECONDS = 0.1

Wav = npt.NDArray[np.float32]


def shuffle_chunks(wav: Wav, sample_rate: int, random: np.random.Generator) -> Wav:
    """The clip [S] cut into chunks of 0.1 s in random order: right sounds, no music."""
    size = int(CHUNK_SECONDS * sample_rate)
    count = len(wav) // size
    chunks = wav[: count * size].reshape(count, size)
    return np.concatenate([chunks[random.permutation(count)].ravel(), wav[count * size :]])


def white_noise(wav: Wav, random: np.random.Generator) -> Wav:
    """White noise [S] as loud as the clip."""
    level = float(np.sqrt(np.square(wav, dtype=np.float64).mean()))
    return (level * random.standard_normal(len(wav))).astype(np.float32)


def add_noise(wav: Wav, snr_db: float, random: np.random.Generator) -> Wav:
    """The clip [S] with white noise `snr_db` dB below it."""
    return wav + np.float32(10 ** (-snr_db / 20)) * white_noise(wav, random)
