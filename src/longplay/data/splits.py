"""Which split a recording belongs to: the hash of its group says it, so that it stays there when others come or go."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from longplay.data.manifest import Split
from longplay.data.recordings import Recording, digest

GroupBy = Literal["album", "artist", "folder", "file"]

MOST = 3.0  # times its share that a split may be of whole groups

log = logging.getLogger(__name__)


def splits(recordings: Sequence[Recording], group_by: GroupBy, valid: float, test: float) -> dict[str, Split]:
    """The split of each id, by the rule of `hashed_splits`; files count, not their lengths.

    Where every group is too large for a split, all are split by file instead. That, and a split that stays empty, is
    warned of.

    Args:
        recordings: those whose split is given keep it.
        group_by: what is kept together unless a group is given: `album` (artist and album, else the folder), `artist`
            (else the folder), `folder` (a file in the topmost folder is its own), or each `file` for itself.
        valid, test: shares, from 0 to 1 together.
    """
    wanted = [split for split, share in (("train", 1.0), ("valid", valid), ("test", test)) if share and recordings]
    group = partial(_group, group_by=group_by)
    found = _grouped(recordings, group, valid, test)
    if empty := [split for split in wanted if split not in found.values()]:
        by_file = _grouped(recordings, lambda each: each.source, valid, test)
        if left := [split for split in empty if split in by_file.values()]:
            log.warning(
                "%d recordings are %d groups (by %s), none of them small enough for split %s: split by file instead",
                len(recordings), len(set(map(group, recordings))), group_by, " and ".join(left),
            )  # fmt: skip
            found = by_file
    for split in wanted:
        if split not in found.values():
            log.warning(
                "split %r is empty: %d recordings are too few, or given other splits; add some", split, len(recordings)
            )
    return found


def hashed_split(recording: Recording, group_by: GroupBy, valid: float, test: float) -> Split:
    """The split that is given or that the hash says, whatever else is there."""
    return recording.given.split or _zone(_place(_group(recording, group_by)), valid, test)


def hashed_splits(
    sizes: Mapping[str, int], valid: float, test: float, given: Mapping[Split, int] | None = None
) -> dict[str, Split]:
    """The split of each group.

    A group is hashed to a number between 0 and 1: below `test` it is tested on, in the next `valid` validated on, else
    trained on. So it stays in its split when others come or go, but for what little music needs: a group that would
    make a split larger than `MOST` times its share, or by more than a quarter of what is left to train on, is trained
    on; where a split whose share is not 0 stays empty, the nearest group that is small enough moves there, for a stage
    cannot do without; and one group is always trained on. The first single file of a split is never too large.

    Args:
        sizes: of the groups, in files.
        valid, test: shares, from 0 to 1 together.
        given: files besides whose split is settled.
    """
    count: Counter[Split] = Counter(given or {})
    total = sum(sizes.values()) + count.total()
    shares: dict[Split, float] = {"valid": valid, "test": test}
    most = {
        split: max(1.0, total * min(MOST * share, share + (1 - valid - test) / 4)) for split, share in shares.items()
    }
    place = {group: _place(group) for group in sizes}
    chosen: dict[str, Split] = {}
    for group in sorted(sizes, key=lambda group: place[group]):
        split = _zone(place[group], valid, test)
        if split != "train" and count[split] + sizes[group] > most[split]:
            split = "train"
        chosen[group] = split
        count[split] += sizes[group]

    def move(group: str, to: Split) -> None:
        count[chosen[group]] -= sizes[group]
        count[to] += sizes[group]
        chosen[group] = to

    if chosen and not count["train"]:
        move(list(chosen)[-1], "train")
    for split, share in shares.items():
        room = min(most[split], count["train"] - 1)
        small = [group for group, each in chosen.items() if each == "train" and sizes[group] <= room]
        if share and not count[split] and small:
            move(small[0], split)
    return chosen


def _grouped(
    recordings: Sequence[Recording], group: Callable[[Recording], str], valid: float, test: float
) -> dict[str, Split]:
    given = {each.id: each.given.split for each in recordings if each.given.split}
    free = {each.id: group(each) for each in recordings if not each.given.split}
    chosen = hashed_splits(Counter(free.values()), valid, test, Counter(given.values()))
    return given | {name: chosen[of] for name, of in free.items()}


def _group(recording: Recording, group_by: GroupBy) -> str:
    given = recording.given
    if given.group:
        return given.group
    folder = str(Path(recording.source).parent)
    named = {"album": given.album and f"{given.author}/{given.album}", "artist": given.author}.get(group_by)
    if named:
        return named
    return recording.source if group_by == "file" or folder == "." else folder


def _zone(place: float, valid: float, test: float) -> Split:
    return "test" if place < test else "valid" if place < test + valid else "train"


def _place(group: str) -> float:
    """From 0 to 1."""
    return int(digest(group)[:12], 16) / 16**12
