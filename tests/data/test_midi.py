import struct

import pytest

from longplay.data.midi import read_midi


def midi(*tracks: bytes, division: int = 480) -> bytes:
    data = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), division)
    return data + b"".join(b"MTrk" + struct.pack(">I", len(track)) + track for track in tracks)


TEMPO_100 = b"\x00\xff\x51\x03" + (600_000).to_bytes(3, "big")
TEMPO_50 = (1_200_000).to_bytes(3, "big")
END = b"\x00\xff\x2f\x00"


def test_instruments_by_number_of_notes_and_time_of_the_last() -> None:
    flute = b"\x00\xc0\x49" + b"\x00\x90\x3c\x40" + b"\x83\x60\x3c\x00" + END  # running status; velocity 0 is no note
    drums = b"\x00\x99\x24\x40" + b"\x83\x60\x99\x24\x40" + b"\x83\x60\x99\x24\x40" + END
    found = read_midi(midi(TEMPO_100 + END, flute, drums))
    assert found.instruments == ("drums", "flute")
    assert found.seconds == pytest.approx(1.2)


def test_tempo_changes_count_from_their_tick() -> None:
    conductor = TEMPO_100 + b"\x83\x60\xff\x51\x03" + TEMPO_50 + END
    piano = b"\x87\x40\x90\x3c\x40" + END  # two beats after the start
    found = read_midi(midi(conductor, piano))
    assert found.instruments == ("piano",)
    assert found.seconds == pytest.approx(0.6 + 1.2)


@pytest.mark.parametrize("data", [b"", b"RIFF" + bytes(20), midi(division=0xE728)])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="MIDI"):
        read_midi(data)
