"""Recordings made of sines."""

import numpy as np

from longplay import Audio


def chord(seconds: float, sample_rate: int, channels: int = 1) -> Audio:
    """A steady chord, at another level in each channel."""
    times = np.arange(int(seconds * sample_rate)) / sample_rate
    wav = sum(np.sin(2 * np.pi * pitch * times + pitch) for pitch in (196.0, 246.9, 293.7)) / 6
    return Audio(np.stack([wav / (channel + 1) for channel in range(channels)]), sample_rate)
