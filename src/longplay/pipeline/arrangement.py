"""What a piece is held to: pulse, key and chords that its prompt asks for, and others that suit the words where it is silent.

A model makes without a pulse, and without harmony, what it is told none of: it has learnt those of all music that has
any. So what the words leave open is drawn by the seed of the piece. Verses have one progression of chords, choruses
another; a piece without sections goes from one to the other and back.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from longplay.analysis.measure import same_tempo
from longplay.chords import Chord, spans
from longplay.control import Control
from longplay.harmony import Turns, key_of, usual_key, usual_turns
from longplay.keys import Key
from longplay.prompt import Prompt
from longplay.tempo import usual_bpm

PART_BARS = 16  # of verse and chorus, where there are no sections
EARLY_SECONDS = 1.0  # by which a bar may be before the section that it begins
TURN_BARS = (8, 4, 2, 1)  # that may come again when a recording goes on

Chords = tuple[tuple[float, Chord | None], ...]


def arrange(prompt: Prompt, seed: int, until: float, chords: bool) -> Control | None:
    """What a piece is held to; None for words about music with neither pulse nor pitch.

    Args:
        prompt: what is asked for.
        seed: of the piece.
        until: second at which it ends.
        chords: whether the model is told of any.
    """
    control = prompt.control or Control()
    if not control.bars:
        control = Control.steady(usual_bpm(prompt.text, seed), control.key, beats=prompt.beats)
    if chords:
        key = _asked_key(prompt) or usual_key(prompt.text, seed)
        turns = _asked_turns(prompt) or usual_turns(prompt.text, key, seed)
        if turns is not None:
            control = replace(control, key=key, chords=_laid_out(control.bar_starts(until), turns, prompt))
    return control if control.bars or control.key or control.chords else None


def carry_on(prompt: Prompt, seed: int, found: Control, end: float, until: float) -> Control:
    """What a recording has goes on, its last chords again and again; what is asked for comes first.

    Args:
        prompt: what is asked for.
        seed: of the piece.
        found: what the recording has.
        end: where it ends, in seconds; its last bar begins before.
        until: where the piece ends.
    """
    asked = prompt.control or Control()
    lines = found.bar_starts(end)
    switch = lines[-1]
    pulse = found
    if asked.bpm is not None and not same_tempo(asked.bpm, found.bpm):
        pulse = Control.steady(asked.bpm, start=switch, beats=asked.beats)
    key = _asked_key(prompt) or found.key
    turns = _asked_turns(prompt)
    if turns is None and key is not None and key != found.key:
        turns = usual_turns(prompt.text, key, seed)
    turn = turns.verse if turns else _last_turn(found, lines)
    heard = tuple(each for each in found.chords if each[0] < switch)
    bars = [line for line in pulse.bar_starts(until) if line >= switch] if turn else []
    return replace(pulse, key=key, chords=heard + tuple((line, turn[n % len(turn)]) for n, line in enumerate(bars)))


def _asked_key(prompt: Prompt) -> Key | None:
    """The key that is asked for, else that of the chords."""
    if prompt.asked_key is not None:
        return Key.parse(prompt.asked_key)
    return key_of(prompt.progression) if prompt.progression else None


def _asked_turns(prompt: Prompt) -> Turns | None:
    return Turns(prompt.progression, prompt.progression) if prompt.progression else None


def _laid_out(lines: Sequence[float], turns: Turns, prompt: Prompt) -> Chords:
    """The chord of every bar: of the progression of its part, which begins with the part."""
    chords = list[tuple[float, Chord]]()
    part, first = -1, 0
    for bar, line in enumerate(lines):
        begun = sum(section.start <= line + EARLY_SECONDS for section in prompt.sections)
        here = max(begun - 1, 0) if prompt.sections else bar // PART_BARS
        if here != part:
            part, first = here, bar
        chorus = prompt.sections[here].label == "chorus" if prompt.sections else here % 2 == 1
        turn = turns.chorus if chorus else turns.verse
        chords.append((line, turn[(bar - first) % len(turn)]))
    return tuple(chords)


def _last_turn(found: Control, lines: Sequence[float]) -> tuple[Chord | None, ...]:
    """The chords of as many of the last bars as may come again, of each bar the one that sounds for most of it."""
    if not found.chords:
        return ()
    known = [line for line in lines if line >= found.chords[0][0]]
    bars = [_main_chord(found, start, end) for start, end in pairwise(known)]
    count = next((count for count in TURN_BARS if count <= len(bars)), 0)
    return tuple(bars[-count:]) if count else (found.chords[-1][1],)


def _main_chord(found: Control, start: float, end: float) -> Chord | None:
    seconds = defaultdict[Chord | None, float](float)
    for since, until, chord in spans(found.chords, end):
        seconds[chord] += max(0.0, min(until, end) - max(since, start))
    return max(seconds, key=seconds.__getitem__)
