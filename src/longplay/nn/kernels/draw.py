"""From logits to a code, as `engine/sampling.py` does it, and what is heard of it: between two steps that are compiled.

A draw by torch is two dozen calls, which take as long as a third of a step of a small model.
"""

# mypy: ignore-errors
# numba's decorators are untyped, and annotations would be taken for compiled types.

import numpy as np
from numba import njit

from longplay.nn.kernels import RECENT_CODES, vectors

GUIDANCE, TEMPERATURE, TOP_P, MAX_REPEAT = range(4)
"""Columns of the settings of a slot."""
_LEAST = np.float32(-87.0)  # what is that far below, or forbidden, has no weight at all


@njit
def choose(
    slot, width, number, logits, x, counters, ended, settings, top_k, uniforms, said, embedding, history, codes, room
):
    """Draw the next code of a slot, the `number`th of `codes`, and put what is heard of it into its rows of `x`; arrays as in `step`."""
    steps, frames, first_eos, active, heard = counters[0], counters[1], counters[2], counters[3], counters[4]
    eos, code = logits.shape[1] - 1, -1
    if steps[slot] >= frames[slot]:
        ended[slot] = True
    if not ended[slot]:
        place = steps[slot] % uniforms.shape[2]
        _mix(logits, slot * width, width, steps[slot] < first_eos[slot], settings[slot, GUIDANCE], room[0])
        code = draw(room, settings[slot, TEMPERATURE], top_k[slot], settings[slot, TOP_P], uniforms[0, slot, place])
        if settings[slot, MAX_REPEAT] <= _times_recently(code, history[slot], heard[slot]) / RECENT_CODES:
            code = draw(room, 1.0, 0, 1.0, uniforms[1, slot, place])
        if code == eos:
            ended[slot], code = True, -1
    codes[slot, number] = code
    code = max(code, 0)  # an ended piece idles on code 0
    history[slot, heard[slot]] = code
    heard[slot] += active[slot]
    for row in range(slot * width, (slot + 1) * width):
        for i in range(x.shape[1]):
            x[row, i] = embedding[code, i]
    if said.shape[1] > 1:
        place = steps[slot] % said.shape[1]
        for i in range(x.shape[1]):
            x[slot * width, i] += said[slot, place, i]
    steps[slot] += 1


@njit
def _mix(logits, row, width, early, guidance, mixed):
    """A row of logits, or what guidance makes of a pair of rows; the last class is forbidden while it is `early`."""
    if width > 1 and guidance != 1:
        weight, rest = np.float32(guidance), np.float32(1.0 - guidance)
        for i in range(len(mixed)):
            mixed[i] = weight * logits[row, i] + rest * logits[row + 1, i]
    else:
        for i in range(len(mixed)):
            mixed[i] = logits[row, i]
    if early:
        mixed[-1] = -np.inf


@njit
def _times_recently(code, history, heard):
    times = 0
    for i in range(max(0, heard - RECENT_CODES), heard):
        times += history[i] == code
    return times


@njit
def draw(room, temperature, top_k, top_p, uniform):
    """One class of logits, the first of the arrays in `room`."""
    mixed, values, classes = room
    if temperature == 0:
        return _first_of_the_largest(mixed)
    count = min(top_k, len(mixed)) if top_k > 0 else len(mixed)
    _likeliest(mixed, count, values, classes)
    degree, largest, total = np.float32(temperature), values[0], 0.0
    for i in range(count):
        below = (values[i] - largest) / degree
        values[i] = vectors.exp(below) if below > _LEAST else np.float32(0.0)
        total += values[i]
    if top_p < 1:
        before, limit = np.float64(values[0]), top_p * total
        kept = 1
        while kept < count and before < limit:
            before += values[kept]
            kept += 1
        count, total = kept, before
    target, so_far, last = np.float64(uniform) * total, 0.0, 0
    for i in range(count):
        so_far += values[i]
        if values[i] > 0:
            last = i
        if so_far > target:
            break
    return classes[last]


@njit
def _first_of_the_largest(numbers):
    best = 0
    for i in range(len(numbers)):
        if numbers[i] > numbers[best]:
            best = i
    return best


@njit
def _likeliest(numbers, count, values, classes):
    """The `count` largest numbers and where they are, the largest first: by a heap whose root is the least of them."""
    for i in range(count):
        values[i], classes[i] = numbers[i], i
    for i in range(count // 2 - 1, -1, -1):
        _sink(values, classes, i, count)
    for i in range(count, len(numbers)):
        if numbers[i] > values[0]:
            values[0], classes[0] = numbers[i], i
            _sink(values, classes, 0, count)
    for end in range(count - 1, 0, -1):
        values[0], values[end] = values[end], values[0]
        classes[0], classes[end] = classes[end], classes[0]
        _sink(values, classes, 0, end)


@njit
def _sink(values, classes, place, end):
    """Let a number sink in a heap until none below it is less."""
    value, of = values[place], classes[place]
    while True:
        below = 2 * place + 1
        if below >= end:
            break
        if below + 1 < end and values[below + 1] < values[below]:
            below += 1
        if values[below] >= value:
            break
        values[place], classes[place] = values[below], classes[below]
        place = below
    values[place], classes[place] = value, of
