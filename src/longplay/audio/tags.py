"""The recipe of a piece, as JSON in the tags of its file: Vorbis comments (flac, ogg) or an ID3 frame (wav, mp3)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longplay.errors import AudioError

KEY = "longplay_recipe"
_TITLE_LENGTH = 120


def write(path: Path, container: str, recipe: Mapping[str, Any]) -> None:
    """Store `recipe` (JSON values only) in a file that was just written.

    Args:
        path: the file, under any name.
        container: WAV, FLAC, OGG or MP3.
        recipe: its `prompt.text`, if there, becomes the title.
    """
    from mutagen.flac import FLAC  # here, since it takes 0.1 s that a first sound need not wait for
    from mutagen.id3 import TIT2, TSSE, TXXX
    from mutagen.mp3 import MP3
    from mutagen.oggvorbis import OggVorbis
    from mutagen.wave import WAVE

    files: dict[str, Any] = {"WAV": WAVE, "FLAC": FLAC, "OGG": OggVorbis, "MP3": MP3}
    text = json.dumps(recipe, ensure_ascii=False, sort_keys=True)
    title = str(recipe.get("prompt", {}).get("text", ""))[:_TITLE_LENGTH]
    file = files[container](path)
    if container in ("FLAC", "OGG"):
        file.update({KEY: text, "title": title, "encoder": "Longplay"})
    else:
        if file.tags is None:
            file.add_tags()
        for frame in (TXXX(3, desc=KEY, text=text), TIT2(3, text=title), TSSE(3, text="Longplay")):
            file.tags.add(frame)
    file.save()


def read(path: Path | str) -> dict[str, Any]:
    """The recipe of a file that this package wrote.

    Raises:
        AudioError: the file is missing or unreadable, or carries no recipe.
    """
    import mutagen

    try:
        file = mutagen.File(path)
    except (mutagen.MutagenError, OSError) as error:
        raise AudioError(f"{path}: cannot be read ({error}); give a file that Longplay wrote") from None
    found = _text(file) if file is not None else None
    try:
        recipe = json.loads(found) if found is not None else None
    except json.JSONDecodeError:
        recipe = None
    if not isinstance(recipe, dict):
        raise AudioError(f"{path}: carries no Longplay recipe in its tags; give a file that Longplay wrote")
    return recipe


def _text(file: Any) -> str | None:
    from mutagen.id3 import ID3FileType
    from mutagen.wave import WAVE

    if isinstance(file, WAVE | ID3FileType):
        frame = file.tags.get(f"TXXX:{KEY}") if file.tags is not None else None
        return str(frame.text[0]) if frame is not None else None
    values = file.tags.get(KEY) if file.tags is not None else None
    return str(values[0]) if values else None
