import pytest

from longplay.data.copyright import Rights, read_stanzas, rights

TEXT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: game

Files: *
Copyright: 2010 The Team
License: GPL-2+

Files: data/music/*
Copyright: 2011-2013, Ada Ä <ada@example.org>
           2012 Bob (bob.example)
License: CC-BY-3.0
 The licence text.
 .
 Its second paragraph.

Files: data/music/storm.ogg data/sfx/boom.wav
Copyright: (c) 2014 Cy
License: CC0-1.0

Files: debian/*
Copyright: 2015 Packager
License: GPL-2+
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("usr/share/game/data/music/calm.ogg", Rights(("Ada Ä", "Bob (bob.example)"), "CC-BY-3.0")),
        ("usr/share/game/music/calm.ogg", Rights(("Ada Ä", "Bob (bob.example)"), "CC-BY-3.0")),
        ("usr/share/game/data/music/storm.ogg", Rights(("Cy",), "CC0-1.0")),
        ("usr/share/game/level/other.ogg", Rights((), "")),
    ],
)
def test_the_closest_paragraph_decides(path: str, expected: Rights) -> None:
    assert rights(read_stanzas(TEXT), path) == expected


def test_free_text_tells_nothing_by_machine() -> None:
    assert read_stanzas("This package was made by Someone.\n\nCopyright: 2009 Someone\n") == []
