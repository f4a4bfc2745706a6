"""Is a recording fit to learn from? Measured values of the file as it came, and the flags that they raise.

Nothing is judged by ear: each flag is one measured value beyond one limit (`LIMITS`), and both stand in the report.
"""

import math

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longplay.audio.meters import loudness
from longplay.config import Config

FRAME_SECONDS = 0.05
SILENT_DB = -60.0
STILL = 2 / 32768  # dither of 16 bits stays below
CLIP_RUN = 3  # samples in a row at a channel's own extreme
NEAR_TOP = 1e-4  # of it; but for quiet channels, less than this is at it
STEEP = 12  # times as far below it lies the second sample before and after; a rounded top is still nearer there
MIN_DROPOUT_SECONDS, MAX_DROPOUT_SECONDS = 0.004, 1.0
BESIDE_DROPOUT_SECONDS, BESIDE_DROPOUT_DB = 0.002, -40.0  # in 5 ms a note that is cut short has died away
BAND_FFT, BAND_DB = 2048, -110.0  # below this mean level, of a full-scale sine, a band holds nothing
LEAST_DB = -120.0

Channels = npt.NDArray[np.float32]  # [C, S], in [-1, 1]


class Quality(Config):
    """Measurements of one recording before anything is done to it.

    Attributes:
        seconds, sample_rate, channels: of the file.
        peak: largest absolute sample.
        loudness: integrated, of the first two channels, in LUFS; None where it is too quiet or too short to be measured.
        silent: share of 50 ms frames below -60 dBFS.
        clipped: share of samples that lie in runs of at least 3 at the greatest or least value of their channel, cut off.
        dropouts: gaps of silence (4 ms to 1 s) torn into the sound of a channel, per minute.
        side: level of the difference of two channels against their sum, in dB; None for one channel.
        width: the same, once both are brought to one level, and neither is turned round; also None where one is dead.
        balance: level of the quieter of two channels against the other, in dB; None for one channel.
        offset: the largest mean of a channel (DC).
        bandwidth: the highest frequency in Hz with anything in it.
    """

    seconds: float = Field(ge=0)
    sample_rate: int
    channels: int
    peak: float
    loudness: float | None
    silent: float
    clipped: float
    dropouts: float
    side: float | None
    offset: float
    bandwidth: float
    width: float | None = None  # as `balance`, not in records of earlier versions
    balance: float | None = None


# flag: (measured value, its least and its greatest innocent value, what it means)
LIMITS: dict[str, tuple[str, float, float, str]] = {
    "clipping": ("clipped", 0, 1e-4, "more than 1 sample in 10,000 is cut off at the maximum"),
    "dropouts": ("dropouts", 0, 0.5, "gaps torn into the sound, more than one in two minutes"),
    "quiet": ("loudness", -40, math.inf, "below -40 LUFS: noise will be raised with it"),
    "silence": ("silent", 0, 0.5, "more than half of it is silent"),
    "mono as stereo": ("width", -60, math.inf, "both channels are the same, but for their level"),
    "one channel": ("balance", -60, math.inf, "one of two channels is dead"),
    "out of phase": ("side", -math.inf, 6, "the channels cancel each other in mono"),
    "offset": ("offset", 0, 0.02, "the waveform does not swing around zero"),
    "narrow band": ("bandwidth", 15000, math.inf, "nothing above 15 kHz: once compressed, or of a low sample rate"),
}


def inspect(channels: Channels, rate: int) -> Quality:
    """Measure `channels` [C, S] of at least one sample."""
    count = channels.shape[1]
    mono = channels.mean(axis=0)
    side, width, balance = _stereo(channels)
    return Quality(
        seconds=round(count / rate, 3),
        sample_rate=rate,
        channels=len(channels),
        peak=round(float(np.abs(channels).max()), 5),
        loudness=_loudness(channels, rate),
        silent=round(_silent(mono, rate), 4),
        clipped=_clipped(channels),
        dropouts=round(_dropouts(channels, rate) / (count / rate) * 60, 3),
        side=side,
        offset=round(float(np.abs(channels.mean(axis=1, dtype=np.float64)).max()), 5),
        bandwidth=round(_bandwidth(mono, rate)),
        width=width,
        balance=balance,
    )


def flags(quality: Quality) -> list[str]:
    """The names in `LIMITS` of what lies beyond its limits; what could not be measured raises no flag."""
    found = []
    for flag, (name, least, most, _) in LIMITS.items():
        value = getattr(quality, name)
        if value is not None and not least <= value <= most:
            found.append(flag)
    return found


def _loudness(channels: Channels, rate: int) -> float | None:
    value = loudness(channels[:2], rate)
    return round(value, 2) if math.isfinite(value) else None


def _silent(mono: npt.NDArray[np.float32], rate: int) -> float:
    frame = min(max(1, int(rate * FRAME_SECONDS)), len(mono))
    frames = mono[: len(mono) // frame * frame].reshape(-1, frame)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    return float((power < 10 ** (SILENT_DB / 10)).mean())


def _clipped(channels: Channels) -> float:
    """Clean music meets its maximum for a sample now and then; a limiter or an overload stays there, at whatever level."""
    return round(sum(_cut(sign * channel) for channel in channels for sign in (1, -1)) / channels.size, 7)


def _cut(wave: npt.NDArray[np.float32]) -> int:
    """How many samples of `wave` [S] lie on tops that are cut off: it climbs there and falls from there, and is flat between.

    So neither the tops of a slow sine count, nor the steps of a square wave.
    """
    top = float(wave.max())
    near = max(top * NEAR_TOP, STILL)
    starts, lengths = _runs(wave >= top - near)
    inside = (lengths >= CLIP_RUN) & (starts >= 2) & (starts + lengths + 2 <= len(wave))
    starts, lengths = starts[inside], lengths[inside]

    def slopes(next_to: npt.NDArray[np.int_], beyond: npt.NDArray[np.int_]) -> npt.NDArray[np.bool_]:
        return (wave[beyond] < top - STEEP * near) & (wave[beyond] < wave[next_to] - near)

    ends = starts + lengths
    return int(lengths[slopes(starts - 1, starts - 2) & slopes(ends, ends + 1)].sum())


def _dropouts(channels: Channels, rate: int) -> int:
    """Gaps in any channel with loud sound right before and right after: music that ends on purpose fades first."""
    beside = max(1, int(BESIDE_DROPOUT_SECONDS * rate))
    floor = 10 ** (BESIDE_DROPOUT_DB / 10)
    torn = np.zeros(channels.shape[1], np.bool_)
    for channel in channels:
        starts, lengths = _runs(np.abs(channel) < STILL)
        fitting = (lengths >= MIN_DROPOUT_SECONDS * rate) & (lengths <= MAX_DROPOUT_SECONDS * rate)
        for start, length in zip(starts[fitting], lengths[fitting], strict=True):
            before, after = channel[max(0, start - beside) : start], channel[start + length :][:beside]
            enough = len(before) == len(after) == beside
            if enough and min(float(np.square(each).mean()) for each in (before, after)) > floor:
                torn[start : start + length] = True
    return len(_runs(torn)[0])


def _stereo(channels: Channels) -> tuple[float | None, float | None, float | None]:
    """`side`, `width` and `balance` of `Quality`."""
    if len(channels) != 2 or not channels.any():
        return None, None, None
    left, right, shared = (
        float(np.multiply(channels[a], channels[b], dtype=np.float64).mean()) for a, b in ((0, 0), (1, 1), (0, 1))
    )
    level = math.sqrt(left * right)
    return (
        _decibels(left + right - 2 * shared, left + right + 2 * shared),
        _decibels(level - abs(shared), level + abs(shared)) if level else None,
        _decibels(min(left, right), max(left, right)),
    )


def _decibels(power: float, other: float) -> float:
    ratio = (max(power, 0.0) + 1e-18) / (max(other, 0.0) + 1e-18)  # what is below 0 is an error of rounding
    return round(max(LEAST_DB, min(-LEAST_DB, 10 * math.log10(ratio))), 1)


def _bandwidth(mono: npt.NDArray[np.float32], rate: int) -> float:
    if len(mono) < BAND_FFT:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(mono, BAND_FFT)[:: 2 * BAND_FFT]
    window = (np.hanning(BAND_FFT) * 4 / BAND_FFT).astype(np.float32)
    power = np.zeros(BAND_FFT // 2 + 1)
    for start in range(0, len(windows), 256):  # bounds the memory of long files
        power += np.square(np.abs(np.fft.rfft(windows[start : start + 256] * window))).sum(axis=0)
    heard = np.flatnonzero(power / len(windows) > 10 ** (BAND_DB / 10))
    return float(heard[-1] * rate / BAND_FFT) if len(heard) else 0.0


def _runs(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """Starts and lengths of the stretches where `mask` holds."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return edges[::2], edges[1::2] - edges[::2]
