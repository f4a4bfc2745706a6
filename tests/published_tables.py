"""The tables of tensor names and shapes in CHECKPOINTS.md, section 4, for the tests of all four models."""

import itertools
import json
import re

import pytest

from golden_fixtures import GOLDEN

_ROW = re.compile(r"\| `(?P<name>[^`]+)` \| (?P<shape>\[[\d, ]*\]) \| \w+ \|")
_BRACES = re.compile(r"\{([^}]*)\}")


def published_table(section: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one section, e.g. `published_table("4.5")`, every `{0..2}` and `{0,3}` expanded.

    Skips the calling test where CHECKPOINTS.md is absent; fails when the number of tensors is not the stated one.
    """
    path = GOLDEN.parent / "CHECKPOINTS.md"
    if not path.is_file():
        pytest.skip(f"no CHECKPOINTS.md beside {GOLDEN}; set LONGPLAY_GOLDEN")
    after = path.read_text(encoding="utf-8").split(f"### {section} ", maxsplit=1)[1]
    text = re.split(r"^##", after, maxsplit=1, flags=re.MULTILINE)[0]
    table = {name: tuple(json.loads(row["shape"])) for row in _ROW.finditer(text) for name in _expand(row["name"])}
    stated = re.search(r"^(\d+) tensors", text, flags=re.MULTILINE)
    assert stated is not None
    assert len(table) == int(stated[1])
    return table


def _expand(pattern: str) -> list[str]:
    pieces = _BRACES.split(pattern)  # odd positions are the insides of braces
    choices = [_choices(piece) if index % 2 else [piece] for index, piece in enumerate(pieces)]
    return ["".join(parts) for parts in itertools.product(*choices)]


def _choices(inside: str) -> list[str]:
    if ".." in inside:
        first, last = inside.split("..")
        return [str(index) for index in range(int(first), int(last) + 1)]
    return inside.split(",")
