"""What a listener said of tracks: `labels.jsonl`, one line a track, the input of the lm's `sft` stage."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from longplay.config import Config, describe
from longplay.data.manifest import Track
from longplay.data.splits import hashed_splits
from longplay.errors import ConfigError, UserError
from longplay.files import lines, write_text
from longplay.prompt import Prompt, Section

LABELS = "labels.jsonl"
VALID_SHARE = 0.1  # of the rated tracks, where none of the validation split is among them


class TrackLabel(Config):
    """One track as it was judged.

    Attributes:
        id: of the track.
        rating: 1 (not to be learnt from) to 5 (just right).
        caption: in the listener's words; empty: the captions of the manifest stand.
        sections: None: those of the manifest stand.
    """

    id: str
    rating: int = Field(ge=1, le=5)
    caption: str = ""
    sections: tuple[Section, ...] | None = None


def read_labels(path: Path) -> dict[str, TrackLabel]:
    """Labels by id; of several for a track the last one holds.

    Raises:
        ConfigError: missing, or a line is no label (named by its number).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"labels {path}: {error.strerror}; make them with `longplay data label MANIFEST`") from None
    labels = {}
    for number, line in enumerate(lines(text), 1):
        try:
            label = TrackLabel.model_validate_json(line)
        except ValidationError as error:
            raise ConfigError(f"{path}:{number}: {describe(error, TrackLabel)}") from None
        except UserError as error:
            raise ConfigError(f"{path}:{number}: {error}") from None
        labels[label.id] = label
    return labels


def write_labels(path: Path, labels: Mapping[str, TrackLabel]) -> None:
    """Write all labels in one step, sorted by id.

    Raises:
        UserError: they cannot be written; the file is as it was.
    """
    text = "".join(f"{labels[name].model_dump_json(exclude_defaults=True)}\n" for name in sorted(labels))
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); mend that, and save again") from None


def apply_labels(tracks: Sequence[Track], labels: Mapping[str, TrackLabel], min_rating: int) -> list[Track]:
    """The tracks that are rated at least `min_rating`, with the captions and sections as they were corrected.

    Where none of them is of the validation split, a tenth of those of the training split goes there, one at least: what is
    learnt of a few tracks must be measured on others.

    Raises:
        ConfigError: no track is rated as well.
    """
    chosen = []
    for track in tracks:
        label = labels.get(track.id)
        if label is None or label.rating < min_rating:
            continue
        update: dict[str, object] = {}
        if label.caption:
            update |= {"captions": (label.caption,), "passages": tuple(each.wordless for each in track.passages)}
        if label.sections is not None:
            update["sections"] = label.sections
        chosen.append(track.model_copy(update=update))
    if not any(track.split == "valid" for track in chosen):
        rated = [track.id for track in chosen if track.split == "train"]
        splits = hashed_splits(dict.fromkeys(rated, 1), VALID_SHARE, 0)
        chosen = [track.model_copy(update={"split": splits.get(track.id, track.split)}) for track in chosen]
    if not chosen:
        raise ConfigError(
            f"none of {len(tracks)} tracks is rated {min_rating} or better by these {len(labels)} labels; "
            "rate more, lower --min-rating, or give the manifest that they are for"
        )
    return chosen


def checked_sections(sections: Sequence[Section], seconds: float) -> tuple[Section, ...]:
    """Sections in order, without overlap and inside the piece.

    Raises:
        UserError: naming the section that is not.
    """
    ordered = tuple(sorted(sections, key=lambda section: section.start))
    Prompt(sections=ordered)
    if ordered and ordered[-1].end > seconds + 0.5:
        raise UserError(f"section {ordered[-1]} ends after the piece, which lasts {seconds:.2f} s")
    return ordered
