"""What sounds in a standard MIDI file: the instruments by number of notes, and the time of the last event."""

import struct
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple

from longplay.config import Config

DRUM_CHANNEL = 9
DRUMS = "drums"
DEFAULT_TEMPO = 500_000  # microseconds per beat


class Event(NamedTuple):
    """A channel or tempo event at `tick`: status byte (0x51: tempo) and value (first data byte; tempo)."""

    tick: int
    status: int
    value: int


class Sounding(Config):
    """Names of the instruments, the most used first, and `seconds` to the last note's beginning."""

    instruments: tuple[str, ...]
    seconds: float


def instrument_names() -> list[str]:
    """The 128 General MIDI program names."""
    return files("longplay.data").joinpath("instruments.txt").read_text("utf-8").split("\n")[:128]


def read_midi(data: bytes) -> Sounding:
    """Instruments and length of a standard MIDI file.

    Raises:
        ValueError: the bytes are not a MIDI file with ticks per beat.
    """
    if data[:4] != b"MThd" or len(data) < 14:
        raise ValueError("not a standard MIDI file: no MThd header")
    _, _, division = struct.unpack(">HHH", data[8:14])
    if division & 0x8000:
        raise ValueError("MIDI file counts SMPTE frames; expected ticks per beat")
    events = sorted((event for track in _tracks(data) for event in _events(track)), key=lambda event: event.tick)
    names = instrument_names()
    programs: dict[int, int] = {}
    notes: Counter[str] = Counter()
    seconds, tick, tempo, last = 0.0, 0, DEFAULT_TEMPO, 0.0
    for event in events:
        seconds += (event.tick - tick) * tempo / division / 1e6
        tick = event.tick
        kind, channel = event.status & 0xF0, event.status & 0x0F
        if event.status == 0x51:
            tempo = event.value
        elif kind == 0xC0:
            programs[channel] = event.value
        elif kind == 0x90:
            notes[DRUMS if channel == DRUM_CHANNEL else names[programs.get(channel, 0)]] += 1
            last = seconds
    return Sounding(instruments=tuple(name for name, _ in notes.most_common()), seconds=last)


def _tracks(data: bytes) -> Iterator[bytes]:
    position = 8 + struct.unpack(">I", data[4:8])[0]
    while position + 8 <= len(data):
        (length,) = struct.unpack(">I", data[position + 4 : position + 8])
        if data[position : position + 4] == b"MTrk":
            yield data[position + 8 : position + 8 + length]
        position += 8 + length


def _events(track: bytes) -> Iterator[Event]:
    """Program changes, sounding notes (velocity above 0) and tempos of one track."""
    position = tick = status = 0
    while position < len(track):
        delta, position = _number(track, position)
        tick += delta
        if track[position] & 0x80:
            status = track[position]
            position += 1
        if status == 0xFF:
            kind = track[position]
            length, position = _number(track, position + 1)
            if kind == 0x51:
                yield Event(tick, 0x51, int.from_bytes(track[position : position + length], "big"))
            position += length
        elif status in (0xF0, 0xF7):
            length, position = _number(track, position)
            position += length
        else:
            kind = status & 0xF0
            if kind == 0xC0 or (kind == 0x90 and track[position + 1] > 0):
                yield Event(tick, status, track[position])
            position += 1 if kind in (0xC0, 0xD0) else 2


def _number(data: bytes, position: int) -> tuple[int, int]:
    """A variable-length quantity, and the position after it."""
    value = 0
    while True:
        byte = data[position]
        position += 1
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, position
