"""Audio on stdout, for a player: a WAV stream of 16-bit stereo whose header tells rate and channels.

`longplay generate "calm piano" --output - | aplay`, or `| ffplay -nodisp -autoexit -`, or `| mpv -`.
"""

import struct
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

from longplay.audio.file import Wav

UNKNOWN_LENGTH = 0xFFFFFFFF  # what players take for "until the stream ends"


def write_wav_stream(out: BinaryIO, chunks: Iterable[Wav], sample_rate: int) -> None:
    """Write chunks [C, S] as they come; one channel becomes two equal ones, samples beyond [-1, 1] are clipped."""
    started = False
    for chunk in chunks:
        channels = max(2, chunk.shape[0])
        if not started:
            out.write(_header(sample_rate, channels))
            started = True
        samples = np.rint(chunk.clip(-1, 1) * 32767).astype("<i2")
        out.write(np.broadcast_to(samples, (channels, samples.shape[1])).T.tobytes())
        out.flush()


def _header(sample_rate: int, channels: int) -> bytes:
    frame = 2 * channels
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, sample_rate, sample_rate * frame, frame, 16)
    return struct.pack("<4sI4s", b"RIFF", UNKNOWN_LENGTH, b"WAVE") + form + struct.pack("<4sI", b"data", UNKNOWN_LENGTH)
