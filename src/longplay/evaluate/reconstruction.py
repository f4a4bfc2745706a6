"""How well codec, tokenizer and flow bring back a recording, beside Opus on the same clips."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from longplay.data.musicnn import Listener
from longplay.evaluate.artifacts import hum
from longplay.evaluate.distance import Ruler
from longplay.evaluate.frechet import frechet_distance
from longplay.evaluate.opus import opus
from longplay.evaluate.pitch import pitch_kept, pitch_stretches
from longplay.evaluate.report import Row
from longplay.nn.quantizers import CodeUsage

OPUS_KBPS = (6, 12, 24)

Wav = npt.NDArray[np.float32]
Codes = npt.NDArray[np.integer]


def opus_clips(originals: Sequence[Wav], sample_rate: int) -> dict[str, list[Wav]]:
    """The clips [S] through Opus at each baseline's bit rate, by the name of the baseline."""
    return {f"Opus {kbps} kb/s": [opus(wav, sample_rate, kbps) for wav in originals] for kbps in OPUS_KBPS}


def reconstruction_rows(
    originals: Sequence[Wav],
    systems: Mapping[str, Sequence[Wav]],
    sample_rate: int,
    listener: Listener,
    frame_rate: float,
) -> list[Row]:
    """Mean distances of each system's clips [S] from the originals, pitches kept, the Frechet distance of the two sets, and hum.

    Args:
        originals: at least 1.4 s each.
        systems: clips of the same lengths, by the name of the system.
        sample_rate: of all.
        listener: whose embeddings the Frechet distance is of.
        frame_rate: at whose multiples hum is looked for, Hz.

    Raises:
        ValueError: a system has another number of clips, or a clip another length.
    """
    ruler = Ruler(sample_rate)
    reference = listener.embed(originals, sample_rate)
    pitches = [pitch_stretches(wav, sample_rate) for wav in originals]
    rows = []
    for name, clips in systems.items():
        kept = [pitch_kept(real, pitch_stretches(wav, sample_rate)) for real, wav in zip(pitches, clips, strict=True)]
        distances = [ruler.distance(a, b) for a, b in zip(originals, clips, strict=True)]
        rows.append(
            Row(
                name,
                {
                    "mel": float(np.mean([d.mel for d in distances])),
                    "convergence": float(np.mean([d.convergence for d in distances])),
                    "log_magnitude": float(np.mean([d.log_magnitude for d in distances])),
                    "pitch": float(np.nanmean(kept)),
                    "si_sdr": float(np.median([d.si_sdr for d in distances])),
                    "frechet": frechet_distance(reference, listener.embed(clips, sample_rate)),
                    "hum_db": hum(clips, sample_rate, frame_rate),
                },
            )
        )
    return rows


def code_usage(codes: Sequence[Codes], codebook_size: int) -> dict[str, float]:
    """`CodeUsage` of the codes [K, T] of several clips, as figures of a report."""
    usage = CodeUsage.of(torch.from_numpy(np.concatenate(codes, axis=1)), codebook_size)
    whole = {"used": usage.used, "used_least": usage.used_least, "perplexity": usage.perplexity}
    return whole | usage.by_book("used")
