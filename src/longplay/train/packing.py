"""Examples of different lengths in rows of a fixed number of positions.

A batch then has as many windows as fit, not so many whatever their length: the memory and time of a step are those of its
rows, and next to nothing of them is empty.
"""

from collections.abc import Iterator

from longplay.errors import TrainingError
from longplay.train.lm_examples import Example

# examples that find no place one after the other before the rows count as full
_MISSES = 8


def fill_rows(examples: Iterator[Example], rows: int, positions: int) -> list[list[Example]]:
    """Examples, as they come, each in the row that it leaves least room in.

    One that fits nowhere is cut to the largest room, if half of it fits there.

    Args:
        examples: without end.
        rows: how many to fill.
        positions: of a row: text, structure and codes.

    Raises:
        TrainingError: a row stays empty, since its text is too long for it.
    """
    filled: list[list[Example]] = [[] for _ in range(rows)]
    room = [positions] * rows
    misses = 0
    for example in examples:
        widest = max(range(rows), key=room.__getitem__)
        spare = room[widest] - example.before
        if spare >= example.frames:
            size = example.before + example.frames
            row = min((row for row in range(rows) if room[row] >= size), key=room.__getitem__)
            placed = example
        elif 2 * spare >= example.frames:
            row, placed = widest, example.cut(spare)
        else:
            misses += 1
            if misses == _MISSES:
                break
            continue
        filled[row].append(placed)
        room[row] -= placed.before + placed.frames
        misses = 0
    if not all(filled):
        raise TrainingError(
            f"row_positions = {positions}: is too few for {example.frames} codes after {example.before} positions of text "
            "and structure; raise it, or shorten the captions"
        )
    return filled
