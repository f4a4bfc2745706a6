"""How near generated music is to real music, and to its prompts.

The tracks of the test split are dealt into two halves, every other one. Half B is the reference. Half A gives the
prompts, one per clip, and is itself scored as music that is as good as can be ("real"): so every row differs from
the reference in its tracks, and holds as many clips as the others.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from longplay.analysis.measure import Facts, measure, same_tempo
from longplay.control import Control
from longplay.data.manifest import Track
from longplay.data.musicnn import Heard
from longplay.evaluate.adherence import (
    CHOICES,
    hit_rate,
    retrieval_rate,
    same_key,
    same_tonic,
)
from longplay.evaluate.artifacts import hum, silence, still
from longplay.evaluate.clips import Clip
from longplay.evaluate.controls import add_noise, shuffle_chunks, white_noise
from longplay.evaluate.frechet import frechet_distance
from longplay.evaluate.harmony import chord_rate
from longplay.evaluate.report import Row
from longplay.keys import named_key
from longplay.tempo import named_bpm

NOISE_DB = 10.0
BEATLESS = (
    "calm ambient piano with soft strings",
    "dark ambient drone",
    "quiet ambient music, harp and flute",
    "warm ambient pads, peaceful",
    "ambient guitar without a beat",
    "beatless choir and organ, slow",
)
"""Prompts for music without a pulse, of which test captions are few; such music is the first to fall silent."""

Wav = npt.NDArray[np.float32]
Embeddings = npt.NDArray[np.float32]


def prompt_of(track: Track) -> str:
    """The caption that asks for most that can be checked: tempo and key, else one of them, else the first."""
    return max(track.captions, key=lambda text: (named_bpm(text) is not None) + (named_key(text) is not None))


def controls(clips: Sequence[Clip]) -> dict[str, list[Wav]]:
    """The clips [S] spoiled in known ways, by name; seeded."""
    random = np.random.default_rng(0)
    return {
        "shuffled in 0.1 s chunks": [shuffle_chunks(clip.wav, clip.sample_rate, random) for clip in clips],
        "real + noise at 10 dB": [add_noise(clip.wav, NOISE_DB, random) for clip in clips],
        "white noise": [white_noise(clip.wav, random) for clip in clips],
    }


def quality_rows(reference: Embeddings, real: Embeddings, others: Mapping[str, Embeddings]) -> list[Row]:
    """Frechet distance to the reference of each set [n, D], and its ratio to that of real music."""
    floor = frechet_distance(reference, real)
    distances = {name: frechet_distance(reference, embeddings) for name, embeddings in others.items()}
    distances["real, other tracks"] = floor
    return [Row(name, {"frechet": value, "times_real": value / floor}) for name, value in distances.items()]


def artifact_rows(sets: Mapping[str, Sequence[Wav]], sample_rate: int, frame_rate: float) -> list[Row]:
    """Hum at a frame rate in Hz, silence, and sounds that stand still, of each set of clips [S]."""
    return [
        Row(
            name,
            {
                "hum_db": hum(wavs, sample_rate, frame_rate),
                "silent": silence(wavs, sample_rate),
                "still": still(wavs, sample_rate),
            },
        )
        for name, wavs in sets.items()
    ]


def adherence_rows(
    clips: Sequence[Clip],
    real: Heard,
    made: Sequence[Wav],
    sample_rate: int,
    heard: Heard,
    held: Sequence[Control | None],
) -> list[Row]:
    """Share of the prompts that are met, beside the recordings that they describe, and chance.

    Args:
        clips: recordings whose captions were the prompts.
        real: `clips`, heard.
        made: what was generated, [S] each, in the same order.
        sample_rate: of `made`.
        heard: `made`, heard.
        held: what each of `made` was held to.
    """
    prompts, groups = [prompt_of(clip.track) for clip in clips], [clip.track.id for clip in clips]
    found = [measure(wav, sample_rate) for wav in made]
    kept = _words_kept(prompts, found) | _chords_kept(held, found)
    real_kept = _words_kept(prompts, [measure(clip.wav, clip.sample_rate) for clip in clips])
    own = _own_of_8(real.tags, heard.tags, groups)
    return [
        Row("generated", own | {name: met for name, (met, _) in kept.items()}),
        Row("chance", dict.fromkeys(own, 1 / CHOICES) | {name: chance for name, (_, chance) in kept.items()}),
        Row("real", _other_clip_of_track(real, groups) | {name: met for name, (met, _) in real_kept.items()}),
    ]


def _words_kept(prompts: Sequence[str], found: Sequence[Facts]) -> dict[str, tuple[float, float]]:
    """How often tempo, key, and tonic of the likeliest key are those of the prompt, and what chance gives."""
    bpms, keys = [named_bpm(text) for text in prompts], [named_key(text) for text in prompts]
    return {
        "tempo": hit_rate(bpms, [each.bpm for each in found], same_tempo),
        "key": hit_rate(keys, [each.key for each in found], same_key),
        "tonic": hit_rate(keys, [each.likeliest_key for each in found], same_tonic),
    }


def _chords_kept(held: Sequence[Control | None], found: Sequence[Facts]) -> dict[str, tuple[float, float]]:
    """Share of the time in which the chord is the one that the model was told of, and chance; empty where it was told of none."""
    asked = [control.chords if control else () for control in held]
    if not any(asked):
        return {}
    return {"chords": chord_rate(asked, [each.chords for each in found], min(each.seconds for each in found))}


def _other_clip_of_track(real: Heard, groups: Sequence[str]) -> dict[str, float]:
    """Retrieval of a track by another clip of the same track: as good as tags can be."""
    partner = {
        i: next((j for j, other in enumerate(groups) if other == group and j != i), None)
        for i, group in enumerate(groups)
    }
    first = [i for i, j in partner.items() if j is not None]
    second = [j for j in partner.values() if j is not None]
    return _own_of_8(real.tags[first], real.tags[second], [groups[i] for i in first])


def _own_of_8(real: Embeddings, heard: Embeddings, groups: Sequence[str]) -> dict[str, float]:
    """Empty where there are fewer tracks than a choice needs."""
    return {"own_of_8": retrieval_rate(real, heard, groups)} if len(set(groups)) >= CHOICES else {}
