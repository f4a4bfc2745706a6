"""How well a model goes on from a recording: does its music keep the tempo and the key of what it heard?

Each clip is cut in two: the model hears the first half, and its continuation is measured beside the second half.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from longplay.analysis.measure import Facts, measure, same_tempo
from longplay.evaluate.adherence import hit_rate, same_key
from longplay.evaluate.report import Row

Wav = npt.NDArray[np.float32]


def kept_rows(heard: Sequence[Wav], followed: Sequence[Wav], made: Sequence[Wav], rate: int) -> list[Row]:
    """Share that has a pulse, keeps the tempo within 4 % and keeps the key; and what is left to chance.

    Tempo and key count where the heard half has one.

    Args:
        heard: [S] each, the first halves.
        followed: the recordings' second halves.
        made: continuations, in the same order.
        rate: of all, in Hz.
    """
    first = [measure(wav, rate) for wav in heard]
    real = [measure(wav, rate) for wav in followed]
    ours = [measure(wav, rate) for wav in made]
    tempo, tempo_chance = _kept_tempo(first, ours)
    key, key_chance = _kept_key(first, ours)
    return [
        Row("continued", {"pulse": _pulse(ours), "tempo": tempo, "key": key}),
        Row("chance", {"tempo": tempo_chance, "key": key_chance}),
        Row("real", {"pulse": _pulse(real), "tempo": _kept_tempo(first, real)[0], "key": _kept_key(first, real)[0]}),
    ]


def _kept_tempo(before: Sequence[Facts], after: Sequence[Facts]) -> tuple[float, float]:
    return hit_rate([facts.bpm for facts in before], [facts.bpm for facts in after], same_tempo)


def _kept_key(before: Sequence[Facts], after: Sequence[Facts]) -> tuple[float, float]:
    return hit_rate([facts.key for facts in before], [facts.key for facts in after], same_key)


def _pulse(facts: Sequence[Facts]) -> float:
    return float(np.mean([each.bpm is not None for each in facts]))
