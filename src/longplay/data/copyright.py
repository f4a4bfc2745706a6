"""Who made a work and under which licence, as a Debian copyright file tells (the DEP-5 format)."""

import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import NamedTuple


class Rights(NamedTuple):
    """Authors as the file writes them, and the short name of the licence; empty where it does not say."""

    authors: tuple[str, ...]
    licence: str


class Stanza(NamedTuple):
    """The `Files` globs of one paragraph, with its rights."""

    globs: tuple[str, ...]
    rights: Rights


def read_stanzas(text: str) -> list[Stanza]:
    """The `Files` paragraphs of a copyright file; none if it is free text."""
    stanzas = []
    for paragraph in re.split(r"\n\s*\n", text):
        fields = _fields(paragraph)
        if "files" in fields:
            authors = tuple(_author(line) for line in fields.get("copyright", "").splitlines())
            licence = (fields.get("license", "").splitlines() or [""])[0].strip()
            globs = tuple(fields["files"].replace(",", " ").split())
            stanzas.append(Stanza(globs, Rights(tuple(dict.fromkeys(filter(None, authors))), licence)))
    return stanzas


def rights(stanzas: list[Stanza], path: str) -> Rights:
    """The rights of a file of the package: the paragraph that names its path most closely.

    A copyright file names paths of the source, a package installs them elsewhere. So a glob fits a path if their
    ends agree; the more of its components agree, the closer it is. A glob that names no folder or file at all
    (`*`) covers the program and says nothing of its music.
    """
    best, found = 0.0, Rights((), "")
    for stanza in stanzas:
        for glob in stanza.globs:
            if (closeness := _closeness(glob, path)) >= best and closeness > 0:
                best, found = closeness, stanza.rights
    return found


def _closeness(glob: str, path: str) -> float:
    """How many trailing components of `glob` fit the end of `path`; a wildcard counts for half, 0 is no fit."""
    parts = PurePosixPath(glob).parts
    for start in range(len(parts)):
        tail = parts[start:]
        if all(set(part) <= {"*", "?"} for part in tail):
            break
        if fnmatchcase(path, "*/" + "/".join(tail)):
            return sum(0.5 if "*" in part else 1.0 for part in tail)
    return 0.0


def _fields(paragraph: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in paragraph.splitlines():
        if match := re.match(r"([A-Za-z-]+):\s*(.*)", line):
            name = match[1].lower()
            fields[name] = match[2]
        elif name:
            fields[name] += "\n" + line.strip()
    return fields


def _author(line: str) -> str:
    """`2006-2007, Some One <mail>` to `Some One`."""
    line = re.sub(r"<[^>]*>|\(c\)|©|Copyright", "", line, flags=re.IGNORECASE)
    return re.sub(r"^[\s\d,–-]+", "", line).strip(" ,;.")
