"""Is a file all there? A download that broke off decodes without complaint, only shorter than the file says that it is."""

from pathlib import Path

MISSING_SHARE, MISSING_SECONDS = 0.02, 0.5  # more is cut off; less is what encoders pad, and headers round
UNTOLD_BYTES = 0x7FFF0000  # this size, and more, is written for sound whose end is not known yet
OGG_PAGE, OGG_LAST = b"OggS", 4  # how a page begins, and the flag of the last one, in the second byte after that
OGG_TAIL = 1 << 17  # bytes, two of the largest pages


def cut_off(path: Path, seconds: float) -> str | None:
    """What is missing of a file of which `seconds` could be decoded, in words; None if nothing is, or it cannot be told."""
    told = _told(path)
    if told is not None and seconds < told * (1 - MISSING_SHARE) - MISSING_SECONDS:
        return f"cut off: {seconds:.1f} s are there of {told:.1f} s"
    if not _ogg_ends(path):
        return f"cut off after {seconds:.1f} s: its last page is missing"
    return None


def _told(path: Path) -> float | None:
    """The length in seconds that a file's header tells, if it tells one; a guess from size and bitrate is none."""
    import mutagen  # here, since it takes 0.1 s that a first sound need not wait for
    from mutagen.aac import AAC
    from mutagen.mp3 import BitrateMode

    try:
        file = mutagen.File(path)
    except (mutagen.MutagenError, OSError):
        return None
    if file is None or isinstance(file, AAC) or getattr(file.info, "bitrate_mode", None) is BitrateMode.UNKNOWN:
        return None
    seconds, bitrate = float(file.info.length), getattr(file.info, "bitrate", 0)
    return seconds if seconds * bitrate / 8 < max(UNTOLD_BYTES, path.stat().st_size) else None


def _ogg_ends(path: Path) -> bool:
    """Whether an Ogg file has its last page; any other file has nothing that it could lack."""
    with path.open("rb") as file:
        if file.read(len(OGG_PAGE)) != OGG_PAGE:
            return True
        file.seek(max(0, path.stat().st_size - OGG_TAIL))
        tail = file.read()
    _, page, rest = tail.rpartition(OGG_PAGE)
    return not page or (len(rest) > 1 and bool(rest[1] & OGG_LAST))
