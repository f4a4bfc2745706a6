"""Keys and values of the positions so far, preallocated: nothing is concatenated per step.

Every row of a batch starts at slot 0 of its part, and slot n holds position n. So one rule masks everything, in chunked
prefill of rows of different lengths and in single steps: a query at position n sees slots 0 to n. Whatever a row holds
beyond its length (padding of a prefill) is overwritten before any query can see it.

In int8 on the CPU the numbers of a head, a multiple of 16, lie as compiled steps multiply them (`nn/kernels/cached.py`):
sixteen keys as [D / 4, 16, 4], four values as [D, 4], and the slots are whole tiles.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from longplay.nn.processor import has_bfloat16

TILE = 256
"""Positions that a compiled step attends to at once, in int8."""
CACHE_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int8)


@dataclass
class KVCache:
    """Travels as an argument and is changed in place.

    Attributes:
        data: [L, B, 2 H_kv, N, D], keys before values; N slots per row.
        lengths: [B], positions that each row holds.
        scales: [L, B, 2 H_kv, N, 1] where `data` is int8: each vector has its own.
        longest: the largest of `lengths`, known to the host so that no step has to ask the device.
        seats: what compiled steps (`nn/compiled.py`) keep here to compute in, by what they do and the number of their threads.
    """

    data: Tensor
    lengths: Int[Tensor, " B"]
    scales: Tensor | None = None
    longest: int = 0
    seats: dict[tuple[object, int], Any] = field(default_factory=dict, init=False, repr=False)
    _heads: Tensor = field(init=False, repr=False)
    _layers: list[tuple[Tensor, Tensor, Tensor]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows, heads, slots = self.data.shape[1:4]
        starts = torch.arange(rows * heads, device=self.data.device) * slots
        self._heads = starts.view(rows, heads, 1)
        # Views, made once: what a layer writes to, its keys, its values.
        self._layers = [(layer.flatten(0, 2), *layer.chunk(2, dim=1)) for layer in self.data]

    @classmethod
    def empty(
        cls,
        num_layers: int,
        batch_size: int,
        num_kv_heads: int,
        capacity: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "KVCache":
        """Room for `batch_size` rows of at most `capacity` positions, or some more; `dtype` is one of `CACHE_DTYPES`."""
        if _tiled(dtype, device, head_dim):
            capacity += -capacity % TILE
        shape = (num_layers, batch_size, 2 * num_kv_heads, capacity)
        data = torch.zeros(*shape, head_dim, dtype=dtype, device=device)
        scales = torch.zeros(*shape, 1, device=device) if dtype == torch.int8 else None
        return cls(data, torch.zeros(batch_size, dtype=torch.long, device=device), scales)

    @property
    def capacity(self) -> int:
        """Positions that a row can hold."""
        return self.data.shape[3]

    def read_dtype(self, like: torch.dtype) -> torch.dtype:
        """Of what `append` returns for vectors of dtype `like`."""
        if self.scales is not None or (self.data.dtype == torch.bfloat16 and not has_bfloat16(self.data.device)):
            return like
        return self.data.dtype

    def positions(self, count: int) -> Int[Tensor, "B N"]:
        """Positions of the next `count` inputs of each row."""
        if count == 1:
            return self.lengths[:, None]
        return self.lengths[:, None] + torch.arange(count, device=self.lengths.device)

    def places(self, positions: Int[Tensor, "B N"]) -> Int[Tensor, " M"]:
        """Where `append` puts the vectors of these positions, the same in every layer."""
        return (self._heads + positions[:, None]).flatten()

    def append(
        self, layer: int, vectors: Float[Tensor, "B H N D"], places: Int[Tensor, " M"], visible: int
    ) -> tuple[Float[Tensor, "B K V D"], Float[Tensor, "B K V D"]]:
        """Store the new keys and values of a layer.

        Args:
            layer: which.
            vectors: keys, then values, of all kv heads.
            places: of the new positions, from `places`.
            visible: slots to return.

        Returns:
            keys and values of the slots 0 to `visible`, in `read_dtype`.
        """
        flat, keys, values = self._layers[layer]
        new = vectors.reshape(-1, vectors.shape[-1])
        if self.scales is not None:
            return self._append_int8(layer, new, places, visible)
        _write(flat, places, new if new.dtype == flat.dtype else new.to(flat.dtype))
        keys, values, dtype = keys[:, :, :visible], values[:, :, :visible], self.read_dtype(new.dtype)
        return (keys, values) if dtype == flat.dtype else (keys.to(dtype), values.to(dtype))

    def _append_int8(self, layer: int, new: Tensor, places: Tensor, visible: int) -> tuple[Tensor, Tensor]:
        assert self.scales is not None
        scale = new.abs().amax(dim=-1, keepdim=True).float().clamp(min=1e-12) / 127.0
        rounded, numbers, scales = (new / scale).round().to(torch.int8), self.data[layer], self.scales[layer]
        _write(scales.flatten(0, 2), places, scale)
        if _tiled(self.data.dtype, self.data.device, self.data.shape[-1]):
            numbers.flatten()[self._tiled_places(places)] = rounded
            keys, values = _keys(numbers, visible), _values(numbers, visible)
        else:
            _write(self._layers[layer][0], places, rounded)
            keys, values = numbers[:, :, :visible].chunk(2, dim=1)
        of_keys, of_values = scales[:, :, :visible].chunk(2, dim=1)
        return keys.to(new.dtype).mul_(of_keys), values.to(new.dtype).mul_(of_values)

    def _tiled_places(self, places: Int[Tensor, " M"]) -> Int[Tensor, "M D"]:
        """Where in a layer each number of these vectors is."""
        heads, slots, dim = self.data.shape[2:]
        head, slot, number = (places // slots)[:, None], (places % slots)[:, None], torch.arange(dim)
        key = slot // 16 * 16 * dim + number // 4 * 64 + slot % 16 * 4 + number % 4
        value = slot // 4 * 4 * dim + number * 4 + slot % 4
        return head * slots * dim + torch.where(head % heads < heads // 2, key, value)

    def advance(self, count: int, counts: Int[Tensor, " B"] | None = None) -> None:
        """Make the last `count` appended positions part of the history.

        Args:
            count: appended positions, padding included.
            counts: real ones per row; default all.
        """
        self.lengths += count if counts is None else counts
        self.longest += count

    def clear(self) -> None:
        """Forget everything."""
        self.lengths.zero_()
        self.longest = 0

    def copy_rows(self, old: slice, new: slice, count: int) -> None:
        """Let some rows hold what others hold, of which the longest has `count` positions."""
        slots = min(count + -count % TILE, self.capacity)  # whole tiles
        self.data[:, new, :, :slots] = self.data[:, old, :, :slots]
        if self.scales is not None:
            self.scales[:, new, :, :slots] = self.scales[:, old, :, :slots]
        self.lengths[new] = self.lengths[old]

    def rows(self, start: int, stop: int) -> "KVCache":
        """A cache over the memory of some rows; what it appends and advances, this one holds too, but for `longest`."""
        scales = None if self.scales is None else self.scales[:, start:stop]
        return KVCache(self.data[:, start:stop], self.lengths[start:stop], scales, self.longest)


def _write(flat: Tensor, places: Tensor, new: Tensor) -> None:
    if flat.device.type == "mps":  # index_copy_ is younger there than the oldest torch that we run on
        flat[places] = new
    else:
        flat.index_copy_(0, places, new)


def _tiled(dtype: torch.dtype, device: torch.device, head_dim: int) -> bool:
    return dtype == torch.int8 and device.type == "cpu" and head_dim % 16 == 0


def _keys(numbers: Int[Tensor, "B H N D"], visible: int) -> Int[Tensor, "B K V D"]:
    rows, heads, slots, dim = numbers.shape
    laid = numbers[:, : heads // 2].view(rows, heads // 2, slots // 16, dim // 4, 16, 4)[:, :, : -(-visible // 16)]
    return laid.transpose(3, 4).flatten(4).flatten(2, 3)[:, :, :visible]


def _values(numbers: Int[Tensor, "B H N D"], visible: int) -> Int[Tensor, "B K V D"]:
    rows, heads, slots, dim = numbers.shape
    laid = numbers[:, heads // 2 :].view(rows, heads // 2, slots // 4, dim, 4)[:, :, : -(-visible // 4)]
    return laid.transpose(3, 4).flatten(2, 3)[:, :, :visible]
