"""What can be measured in a recording: tempo, key, chords, brightness, density, loudness, and a rough structure.

Plain signal processing, mono in, after well-known recipes:

* tempo: autocorrelation of the onset strength with a log-normal prior around 120 bpm (Ellis, "Beat Tracking by
  Dynamic Programming", 2007); none where no pulse stands out.
* chords: see `chords`; the key follows from them, see `key`.
* sections: see `structure`.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soxr
from pydantic import Field

from longplay.analysis.beats import track_beats
from longplay.analysis.chords import find_chords
from longplay.analysis.key import find_key
from longplay.analysis.structure import GRID_SECONDS, Structure, find_structure
from longplay.chords import TimedChord, pitch_seconds, untimed
from longplay.config import Config
from longplay.keys import Key, likeliest_key
from longplay.prompt import Section

RATE = 22050
FRAME = 2048
HOP = 256
PRIOR_BPM, PRIOR_OCTAVES = 120.0, 0.9
MIN_BPM, MAX_BPM = 50.0, 200.0
TEMPO_TOLERANCE = 0.04
EIGHTHS = 8
SILENT_DB = -60.0
MIN_PULSE = 0.12  # of the onset strength's power must recur at the beat, or there is no tempo to speak of

Array = npt.NDArray[np.float32]


class Facts(Config):
    """Measurements of one track.

    Attributes:
        bpm: beats per minute, None without a clear pulse.
        brightness: median spectral centroid in Hz.
        density: note onsets per second.
        dynamics: dB between its loud and its quiet moments (90th and 10th percentile of the level).
        loudness: level of each eighth of it in dB, the loudest being 0 and none below -60.
        bars: times of the bar lines in seconds; none without a clear pulse.
        chords: triads in order, from 0 on.
    """

    seconds: float
    bpm: float | None = None
    brightness: float = Field(ge=0)
    density: float = Field(ge=0)
    dynamics: float = Field(ge=0)
    loudness: tuple[float, ...] = Field(min_length=EIGHTHS, max_length=EIGHTHS)
    bars: tuple[float, ...]
    chords: tuple[TimedChord, ...]
    sections: tuple[Section, ...] = ()

    @property
    def key(self) -> str | None:
        """Such as "A minor", None without a clear key."""
        found = find_key(self.chords, self.seconds)
        return None if found is None else str(found)

    @property
    def likeliest_key(self) -> Key:
        """The key that its chords fit best, however little it stands out."""
        return likeliest_key(pitch_seconds(untimed(self.chords), self.seconds))


class Texture(NamedTuple):
    """Of a stretch: `brightness` and `density` as in `Facts`; no brightness where it is silent beside the rest."""

    brightness: float | None
    density: float


class Analysis(NamedTuple):
    """The measurements, and the structure with all that it was found by."""

    facts: Facts
    structure: Structure


def measure(wav: Array, rate: int) -> Facts:
    """Measure a mono `wav` [S] in [-1, 1] of at least one second."""
    return analyse(wav, rate).facts


def analyse(wav: Array, rate: int) -> Analysis:
    """Measure a mono `wav` [S] in [-1, 1] of at least one second, and keep what its structure was found by."""
    low = soxr.resample(wav, rate, RATE)
    spectrum = _spectrogram(low)
    bands = _bands(spectrum)
    onsets = onset_strength(bands)
    chroma = chromagram(spectrum)
    bpm = tempo(onsets)
    levels = _levels(low)
    sounding, centroids = _centroids(spectrum)
    quiet_level, loud_level = np.percentile(levels, [10, 90])
    seconds = len(wav) / rate
    beats = track_beats(onsets, RATE / HOP, bpm) if bpm else np.arange(0, seconds, GRID_SECONDS)
    power = 10 * np.log10(np.square(spectrum, dtype=np.float64).sum(axis=1) + 1e-8)
    structure = find_structure(bands, chroma, power, beats, seconds)
    facts = Facts(
        seconds=seconds,
        bpm=bpm,
        **_texture(centroids[sounding], _peaks(onsets), seconds)._asdict(),
        dynamics=round(float(loud_level - quiet_level), 2),
        loudness=_loudness(low),
        bars=tuple(np.round(structure.bars, 3).tolist()) if bpm and len(structure.bars) > 1 else (),
        chords=find_chords(chroma, beats, seconds),
        sections=structure.sections,
    )
    return Analysis(facts, structure)


def textures(wav: Array, rate: int, bounds: Sequence[float]) -> list[Texture]:
    """Measure the stretches of a mono `wav` [S] between `bounds` in seconds, each beside the whole."""
    spectrum = _spectrogram(soxr.resample(wav, rate, RATE))
    sounding, centroids = _centroids(spectrum)
    peaks = _peaks(onset_strength(_bands(spectrum)))

    def texture(start: float, end: float) -> Texture:
        part = slice(round(start * RATE / HOP), round(end * RATE / HOP))
        return _texture(centroids[part][sounding[part]], peaks[part], end - start)

    return [texture(start, end) for start, end in pairwise(bounds)]


def onset_strength(bands: Array) -> Array:
    """How much the log spectrum grows from frame to frame, [frames, bands] to [frames], local mean removed."""
    growth = np.maximum(np.diff(bands, axis=0, prepend=bands[:1]), 0).mean(axis=1)
    width = int(RATE / HOP)
    return np.maximum(growth - np.convolve(growth, np.ones(width) / width, mode="same"), 0).astype(np.float32)


def tempo(onsets: Array) -> float | None:
    """Beats per minute of an onset strength at `RATE / HOP` frames per second; None without a clear pulse."""
    frames_per_second = RATE / HOP
    centred = onsets - onsets.mean()
    size = 1 << (2 * len(centred) - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, size)) ** 2
    correlation = np.fft.irfft(power, size)[: len(centred)]
    if correlation[0] <= 0:
        return None
    correlation /= correlation[0]
    bpms = np.geomspace(MIN_BPM, MAX_BPM, 600)
    lags = 60 * frames_per_second / bpms
    positions = np.arange(len(correlation))
    at = [np.interp(lags * multiple, positions, correlation, right=0) for multiple in (1, 2, 4)]
    prior = np.exp(-0.5 * (np.log2(bpms / PRIOR_BPM) / PRIOR_OCTAVES) ** 2)
    best = int(np.argmax((at[0] + at[1] + at[2]) * prior))
    return round(float(bpms[best]), 1) if at[0][best] > MIN_PULSE else None


def same_tempo(asked: float, measured: float | None) -> bool:
    """Within 4 %, octave errors counting as errors."""
    return measured is not None and abs(measured - asked) <= TEMPO_TOLERANCE * asked


def chromagram(spectrum: Array) -> Array:
    """Strength of the twelve pitch classes from the peaks of a magnitude spectrogram, [frames, bins] to [frames, 12]."""
    frequencies = np.arange(spectrum.shape[1]) * RATE / FRAME
    usable = np.flatnonzero((frequencies > 60) & (frequencies < 2000))
    # A bin is wider than a semitone below 180 Hz: spread it over the pitches that it covers.
    midi = 69 + 12 * np.log2(frequencies[usable] / 440)
    width = np.maximum(0.3, 12 * np.log2(1 + 0.5 * RATE / FRAME / frequencies[usable]))
    distance = (midi[:, None] - np.arange(12) + 6) % 12 - 6
    bins = spectrum[:, usable[0] - 1 : usable[-1] + 2]
    inner = bins[:, 1:-1]
    peaks = np.where((inner > bins[:, :-2]) & (inner >= bins[:, 2:]), inner, 0)
    return np.sqrt(peaks) @ np.exp(-0.5 * (distance / width[:, None]) ** 2).astype(np.float32)


def pitch_classes(wav: Array, rate: int) -> Array:
    """`chromagram` [frames, 12] of a mono wav [S], `RATE / HOP` frames a second."""
    return chromagram(_spectrogram(soxr.resample(wav, rate, RATE)))


def _spectrogram(wav: Array) -> Array:
    """Magnitudes [frames, FRAME / 2 + 1], full scale sine = 1."""
    padded = np.pad(wav, FRAME // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    window = (np.hanning(FRAME) * 4 / FRAME).astype(np.float32)
    pieces = [
        np.abs(np.fft.rfft(windows[start : start + 2048] * window)).astype(np.float32)
        for start in range(0, len(windows), 2048)
    ]
    return np.concatenate(pieces)


def _texture(centroids: Array, peaks: npt.NDArray[np.bool_], seconds: float) -> Texture:
    """Of a stretch of so many seconds: centroids of the frames that sound, and at which frames an onset stands out."""
    brightness = round(float(np.median(centroids)), 1) if len(centroids) else None
    return Texture(brightness, round(int(peaks.sum()) / seconds, 2))


def _bands(spectrum: Array) -> Array:
    """Log magnitudes [frames, bands] of a spectrogram."""
    return np.log1p(100 * np.add.reduceat(spectrum, _band_edges(), axis=1))


def _centroids(spectrum: Array) -> tuple[npt.NDArray[np.bool_], Array]:
    """Which frames of a spectrogram sound beside the others, and the centroid of each in Hz."""
    total = spectrum.sum(axis=1)
    centroids = (spectrum @ (np.arange(spectrum.shape[1]) * RATE / FRAME)) / np.maximum(total, 1e-12)
    return total > 0.1 * total.mean(), centroids


def _band_edges() -> npt.NDArray[np.int_]:
    return np.unique(np.geomspace(3, FRAME // 2, 41).astype(int))[:-1]


def _levels(wav: Array) -> Array:
    """Level in dB of each half second."""
    size = RATE // 2
    frames = wav[: max(len(wav) // size, 1) * size].reshape(-1, min(size, len(wav)))
    return (10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=1) + 1e-8)).astype(np.float32)


def _loudness(wav: Array) -> tuple[float, ...]:
    """Level in dB of each eighth beside the loudest."""
    powers = [float(np.square(part, dtype=np.float64).mean()) + 1e-12 for part in np.array_split(wav, EIGHTHS)]
    return tuple(max(SILENT_DB, round(10 * math.log10(power / max(powers)), 1)) + 0.0 for power in powers)  # no -0.0


def _peaks(onsets: Array) -> npt.NDArray[np.bool_]:
    """At which frames an onset stands out."""
    inner = onsets[1:-1]
    peaks = (inner > onsets[:-2]) & (inner >= onsets[2:]) & (inner > 2 * onsets.mean())
    return np.pad(peaks, 1)
