"""From one sample rate to another (soxr, high quality), whole or as it comes."""

from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from longplay.audio.file import Wav


def resample(wav: Wav, source: int, target: int) -> Wav:
    """[C, S] at `source` Hz to [C, round(S * target / source)] at `target` Hz."""
    if source == target:
        return wav
    length = max(1, round(wav.shape[1] * target / source))
    return fit(soxr.resample(np.ascontiguousarray(wav.T), source, target).astype(np.float32).T, length)


def resample_stream(chunks: Iterable[Wav], source: int, target: int) -> Iterator[Wav]:
    """Chunks [1, S] at `source` Hz to chunks at `target` Hz; how they are cut does not matter."""
    if source == target:
        yield from chunks
        return
    stream = soxr.ResampleStream(source, target, 1, dtype="float32")
    for chunk in chunks:
        made = stream.resample_chunk(np.ascontiguousarray(chunk[0]))
        if made.size:
            yield made[None]
    rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    if rest.size:
        yield rest[None]


def fit(wav: Wav, length: int) -> Wav:
    """[C, S] cut, or continued with zeros, to [C, length]."""
    return np.ascontiguousarray(np.pad(wav[:, :length], ((0, 0), (0, max(0, length - wav.shape[1])))))
