"""Audio in files and in memory: read, write with the recipe in the tags, resample, loudness, fades, joins.

Knows numpy, libsndfile and soxr, and no torch.
"""

from longplay.audio.clip import Audio
from longplay.audio.finish import Finish

__all__ = ["Audio", "Finish"]
