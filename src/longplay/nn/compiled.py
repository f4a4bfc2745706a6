"""A decoding step of int8 weights as one compiled function (`nn/kernels.py`): its weights packed, its threads, its call.

Needs numba and an x86 processor with VNNI, of AVX-512 or AVX. Inputs are quantised row by row, so what a piece
becomes does not depend on its neighbours in a batch, nor on the number of threads.
"""

import functools
import importlib.util
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from longplay.nn.cache import KVCache
from longplay.nn.linear import Weights
from longplay.nn.quantized import Int8Weights

LANES = 16
"""Heads are a multiple of so many numbers wide."""
_NO_SCALES = np.zeros(1, np.float32)
_BYTES_PER_THREAD = 32 << 20  # to read per step; below, waking a thread costs more than it saves
_MANY_ROWS = 16  # likewise, of one projection
PARTS = ("qkv", "o", "gate_up", "down")
_CACHES = {torch.bfloat16: 1, torch.float32: 2, torch.int8: 3}  # kinds of nn/kernels.py


@functools.cache
def is_available() -> bool:
    """Whether this machine has numba and the instructions."""
    if platform.machine().lower() not in ("x86_64", "amd64") or importlib.util.find_spec("numba") is None:
        return False
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    return bool(features.get("avx512vnni") and features.get("avx512vl")) or bool(features.get("avxvnni"))


def fits(head_dim: int) -> bool:
    """Whether heads of this width can be computed."""
    return head_dim % LANES == 0


class CompiledWeights:
    """The projections of a model, packed one after the other, and the threads that multiply with them.

    Args:
        weights: by name: `0.qkv 0.o 0.gate_up 0.down 1.qkv ... head`.
    """

    def __init__(self, weights: Mapping[str, Int8Weights | Weights]) -> None:
        from longplay.nn import kernels

        self.kernels = kernels
        layers = (len(weights) - 1) // len(PARTS)
        self.names = [*(f"{layer}.{part}" for layer in range(layers) for part in PARTS), "head"]
        packed = _Packed()
        self.table = np.array([packed.add(weights[name]) for name in self.names])
        self.numbers = packed.numbers()
        self._team, self._alone = _Team(), threading.Lock()
        self._worthwhile = max(1, sum(pile.nbytes for pile in self.numbers) // _BYTES_PER_THREAD)

    def projections(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Each of them, for any number of rows: [M, in] to [M, out]."""
        return {name: functools.partial(self._project, line) for name, line in zip(self.names, self.table, strict=True)}

    def run(self, function: Callable[..., None], threads: int, *arguments: Any) -> None:
        """Call `function(number, threads, gate, *arguments)` in each thread."""
        self._team.run(function, threads, *arguments)

    @contextmanager
    def alone(self) -> Iterator[int]:
        """Keep others from running it at the same time; gives the number of threads for a step, by the size of the model."""
        with self._alone:
            yield min(torch.get_num_threads(), self._worthwhile)

    def _project(self, line: np.ndarray, x: Float[Tensor, "M I"]) -> Float[Tensor, "M O"]:
        kernels, rows, padded = self.kernels, len(x), int(line[self.kernels.INPUTS])
        apart = line[kernels.CHANNELS] + np.arange(line[kernels.APART])
        whole, line = line, np.where(np.arange(len(line)) == kernels.APART, 0, line)
        inputs, made = x.float().clone(), torch.empty(rows, int(line[kernels.OUTPUTS]))
        is_int8 = line[kernels.KIND] == kernels.INT8
        room = (
            np.empty(rows * padded if is_int8 else 0, np.uint8),
            np.empty(rows, np.float32),
            np.empty((rows, 0), np.float32),
            np.empty(0 if is_int8 else rows * padded, np.float32),
        )
        channels = torch.from_numpy(self.numbers[4][apart])
        channels = channels[channels >= 0]
        kept = inputs[:, channels]
        inputs[:, channels] = 0.0
        with self.alone():
            threads = torch.get_num_threads() if rows >= _MANY_ROWS else 1
            self.run(kernels.project, threads, line, self.numbers, inputs.numpy(), room, made.numpy())
        if len(channels):
            made.addmm_(kept, self._columns(whole)[:, : len(channels)].t())
        return made

    def _columns(self, line: np.ndarray) -> Float[Tensor, "O K"]:
        outputs, apart, start = (
            int(line[at]) for at in (self.kernels.OUTPUTS, self.kernels.APART, self.kernels.COLUMNS)
        )
        return torch.from_numpy(self.numbers[2][start : start + outputs * apart]).view(outputs, apart)


class CompiledStep:
    """Vectors of the next position to logits, as `nn.graphed.step` computes them.

    Args:
        weights: of all projections.
        gains: of the norms: attention and MLP of each layer, and the final one; [2 L + 1, D].
        frequencies: angle per position of the first half of a head, [head_dim / 2].
        num_kv_heads, head_dim: of the attention.
        eps: of the norms.
    """

    def __init__(
        self,
        weights: CompiledWeights,
        gains: Float[Tensor, "N D"],
        frequencies: Float[Tensor, " F"],
        num_kv_heads: int,
        head_dim: int,
        eps: float,
    ) -> None:
        self._weights = weights
        self._gains = gains.float().numpy()
        self._frequencies = frequencies.float().numpy()
        self._eps = np.float32(eps)
        self._lanes = (0,) * (head_dim // LANES)
        outputs, kernels = weights.table[:, weights.kernels.OUTPUTS].tolist(), weights.kernels
        self._heads, self._inner, self._outputs = outputs[0], outputs[2] // 2, outputs[-1]
        self._attended = self._heads - 2 * num_kv_heads * head_dim
        self._group = (0,) * (self._attended // (num_kv_heads * head_dim))
        self._padded = int(weights.table[:, kernels.INPUTS].max())
        self._apart = max(LANES, int(weights.table[:, kernels.APART].max()))
        self._buffers: dict[tuple[int, int, int], tuple[Any, ...]] = {}

    def __call__(
        self, inputs: Float[Tensor, "B 1 D"], cache: KVCache, counts: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B V"]:
        """Logits after `inputs`, which are added to `cache`, as far as `counts` says."""
        weights = self._weights
        numbers, strides = _flat(cache.data)
        scales, scale_strides = (_NO_SCALES, (0, 0, 0)) if cache.scales is None else _flat(cache.scales)
        shapes = (self._group, self._lanes, (0,) * _CACHES[cache.data.dtype])
        with weights.alone() as threads:
            buffers = self._room(len(inputs), cache.capacity, threads)
            x, logits = buffers[0], buffers[5]
            x[:] = inputs[:, 0].numpy()
            weights.run(
                weights.kernels.step, threads, weights.table, weights.numbers, self._gains, self._frequencies, self._eps,
                buffers, (numbers, scales), np.array([strides, scale_strides]), cache.lengths.numpy(), shapes,
            )  # fmt: skip
            made = torch.from_numpy(logits.copy())
        cache.advance(1, counts)
        return made

    def _room(self, rows: int, capacity: int, threads: int) -> tuple[Any, ...]:
        key = (rows, capacity, threads)
        if key not in self._buffers:
            self._buffers.clear()
            dim, part = self._gains.shape[1], (threads, rows)
            rooms = (
                np.zeros((threads, rows * self._padded), np.uint8),
                np.zeros(part, np.float32),
                np.zeros((*part, self._apart), np.float32),
                np.zeros((threads, rows * self._padded), np.float32),
            )
            self._buffers[key] = (
                np.zeros((rows, dim), np.float32),
                np.zeros((rows, self._heads), np.float32),
                np.zeros((rows, self._attended), np.float32),
                np.zeros((rows, 2 * self._inner), np.float32),
                np.zeros((threads, len(self._group), -(-capacity // LANES) * LANES), np.float32),
                np.zeros((rows, self._outputs), np.float32),
                rooms,
                np.zeros((*part, dim), np.float32),
                np.zeros((*part, max(self._inner, self._attended)), np.float32),
            )
        return self._buffers[key]


class _Packed:
    """Weights one after the other, as the kernels read them."""

    def __init__(self) -> None:
        self._bytes = _Pile(np.int8)
        self._shorts = _Pile(np.uint16)
        self._floats = _Pile(np.float32)
        self._sums = _Pile(np.int32)
        self._channels = _Pile(np.int64)

    def add(self, weights: Int8Weights | Weights) -> list[int]:
        """Append a projection; returns its line of the table."""
        from longplay.nn import kernels

        bias = -1 if weights.bias is None else self._floats.add(weights.bias.float().numpy())
        if isinstance(weights, Weights):
            values = _padded(weights.weight, kernels.BLOCK)
            if values.dtype == torch.bfloat16:
                start, kind = self._shorts.add(values.view(torch.uint16).numpy()), kernels.BFLOAT16
            else:
                start, kind = self._floats.add(values.float().numpy()), kernels.FLOAT32
            return [kind, *values.shape, start, -1, -1, bias, 0, -1, -1]
        values = _padded(weights.values, kernels.BLOCK)
        line = [kernels.INT8, *values.shape, self._bytes.add(values.numpy())]
        line += [self._floats.add(weights.scales.numpy())]
        line += [self._sums.add((128 * weights.values.int().sum(dim=1, dtype=torch.int32)).numpy()), bias]
        columns = _padded(weights.columns.t().float(), LANES)
        channels = np.full(columns.shape[1], -1)
        channels[: len(weights.apart)] = weights.apart.numpy()
        return [*line, columns.shape[1], self._channels.add(channels), self._floats.add(columns.numpy())]

    def numbers(self) -> tuple[np.ndarray, ...]:
        """Bytes, shorts, floats, sums and channels."""
        return tuple(pile.whole() for pile in (self._bytes, self._shorts, self._floats, self._sums, self._channels))


class _Pile:
    """Arrays of one kind, to be one."""

    def __init__(self, dtype: Any) -> None:
        self._dtype, self._arrays, self._length = dtype, list[np.ndarray](), 0

    def add(self, array: np.ndarray) -> int:
        """Append; returns where it starts."""
        start = self._length
        self._arrays.append(array.reshape(-1))
        self._length += array.size
        return start

    def whole(self) -> np.ndarray:
        """All of it; a number more, so that there is one."""
        made = np.concatenate([*self._arrays, np.zeros(1, self._dtype)])
        self._arrays.clear()
        return made


class _Team:
    """Threads that run the same function side by side; this one is the first."""

    def __init__(self) -> None:
        self._gate = np.zeros((2, 8), np.int64)
        self._helpers: list[_Helper] = []

    def run(self, function: Callable[..., None], threads: int, *arguments: Any) -> None:
        """Call `function(number, threads, gate, *arguments)` in each, and wait for all."""
        while len(self._helpers) < threads - 1:
            self._helpers.append(_Helper())
        for number, helper in enumerate(self._helpers[: threads - 1], 1):
            helper.start(functools.partial(function, number, threads, self._gate, *arguments))
        function(0, threads, self._gate, *arguments)
        for helper in self._helpers[: threads - 1]:
            helper.wait()


class _Helper:
    """A thread that waits for something to run."""

    def __init__(self) -> None:
        self._wanted, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._job: Callable[[], None] | None = None
        threading.Thread(target=self._loop, name="lm step", daemon=True).start()

    def start(self, job: Callable[[], None]) -> None:
        """Run `job` in the thread."""
        self._job = job
        self._wanted.release()

    def wait(self) -> None:
        """Until it is done."""
        self._done.acquire()

    def _loop(self) -> None:
        while True:
            self._wanted.acquire()
            assert self._job is not None
            self._job()
            self._done.release()


def _padded(values: Tensor, block: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, -values.shape[1] % block)).contiguous()


def _flat(data: Tensor) -> tuple[np.ndarray, tuple[int, ...]]:
    """The numbers of a cache from its first one on, and the distance of its layers, rows and heads."""
    count = data.untyped_storage().nbytes() // data.element_size() - data.storage_offset()
    flat = data.as_strided((count,), (1,))
    if data.dtype == torch.bfloat16:
        flat = flat.view(torch.uint16)
    return flat.numpy(), data.stride()[:3]
