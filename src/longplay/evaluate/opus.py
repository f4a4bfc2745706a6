"""The Opus codec as a baseline, at a set bit rate, aligned to the original.

libsndfile writes Opus at a variable rate constrained to the target (its "compression level" is a linear scale
of the bit rate) and removes the codec's delay when it reads.
"""

import io

import numpy as np
import numpy.typing as npt
import soundfile

from longplay.errors import LongplayError

SAMPLE_RATES = (8000, 12000, 16000, 24000, 48000)
LOWEST, SPAN = 6000, 250000  # bit/s per channel of libsndfile's level 1, and how much more level 0 is

Wav = npt.NDArray[np.float32]


def opus(wav: Wav, sample_rate: int, kbps: float) -> Wav:
    """A mono clip [S] through Opus at `kbps` kilobits per second and back, [S].

    Raises:
        ValueError: a rate that Opus does not have, or a bit rate outside 6 to 256 kb/s.
        LongplayError: this libsndfile was built without Opus.
    """
    level = 1 - (1000 * kbps - LOWEST) / SPAN
    if sample_rate not in SAMPLE_RATES or not 0 <= level <= 1:
        raise ValueError(f"Opus at {sample_rate} Hz, {kbps} kb/s: use one of {SAMPLE_RATES} Hz and 6 to 256 kb/s")
    if "OPUS" not in soundfile.available_subtypes("OGG"):
        raise LongplayError(
            f"libsndfile {soundfile.__libsndfile_version__}: built without Opus; install soundfile from PyPI"
        )
    buffer = io.BytesIO()
    soundfile.write(buffer, wav, sample_rate, format="OGG", subtype="OPUS", compression_level=level)
    buffer.seek(0)
    decoded, _ = soundfile.read(buffer, dtype="float32")
    return np.pad(decoded, (0, max(0, len(wav) - len(decoded))))[: len(wav)]
