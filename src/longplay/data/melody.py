"""Simple tunes over given chords, in MMA's note notation."""

from collections.abc import Sequence
from random import Random

from longplay.chords import Chord
from longplay.config import Config
from longplay.harmony import SCALES
from longplay.keys import Key

LOWEST, HIGHEST = 60, 81  # MIDI pitches of a comfortable lead
REST_SHARE = 0.1
RHYTHMS = {
    3: ("4 4 4", "2 4", "4. 8 4", "8 8 4 4", "2."),
    4: ("4 4 4 4", "2 4 4", "4. 8 4 4", "8 8 4 2", "4 8 8 4 4", "2 2", "4. 8 2", "1"),
}
STRONG_TONES = {"": (0, 4, 7), "m": (0, 3, 7), "7": (0, 4, 10), "m7": (0, 3, 7), "M7": (0, 4, 11), "m7b5": (0, 3, 6)}
SHARPS = ("c", "c#", "d", "d#", "e", "f", "f#", "g", "g#", "a", "a#", "b")


class Voice(Config):
    """A lead instrument: its General MIDI program, counted from 0."""

    program: int


LEADS = (0, 4, 11, 22, 24, 26, 40, 56, 65, 66, 68, 71, 73, 75, 80, 81)


def choose_voice(random: Random) -> Voice:
    """A lead instrument that can carry a tune."""
    return Voice(program=random.choice(LEADS))


def melody(random: Random, chords: Sequence[Chord], key: Key, beats: int) -> tuple[str, ...]:
    """One bar of notes per chord, such as `{4c;8d;8e;2g;}`.

    A two-bar rhythm repeats. The first note of a bar belongs to its chord; the others move by steps of the scale.

    Args:
        chords: of each bar.
        beats: beats of a bar, 3 or 4.
    """
    rhythms = [random.choice(RHYTHMS[beats]).split() for _ in range(2)]
    scale = [pitch for pitch in range(LOWEST, HIGHEST + 1) if (pitch - key.tonic) % 12 in SCALES[key.mode]]
    pitch = random.choice(scale[3:-3])
    bars = []
    for bar, (root, quality) in enumerate(chords):
        tones = [tone for tone in range(LOWEST, HIGHEST + 1) if (tone - root) % 12 in STRONG_TONES[quality]]
        notes = []
        for index, length in enumerate(rhythms[bar % 2]):
            if index and random.random() < REST_SHARE:
                notes.append(f"{length}r;")
                continue
            if index == 0:
                pitch = min(tones, key=lambda tone: (abs(tone - pitch - random.choice((-2, 0, 2))), tone))
            else:
                near = min(range(len(scale)), key=lambda step: abs(scale[step] - pitch))
                pitch = scale[min(max(near + random.choice((-2, -1, -1, 0, 1, 1, 2)), 0), len(scale) - 1)]
            notes.append(f"{length}{SHARPS[pitch % 12]}{'+' * (pitch // 12 - LOWEST // 12)};")
        bars.append("{" + "".join(notes) + "}")
    return tuple(bars)
