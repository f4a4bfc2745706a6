import pytest
import torch
from torch import Tensor

from longplay.nn.cache import KVCache


def empty(dtype: torch.dtype = torch.float32, rows: int = 3, capacity: int = 7) -> KVCache:
    return KVCache.empty(2, rows, 2, capacity, 4, dtype, torch.device("cpu"))


def append(cache: KVCache, vectors: Tensor) -> tuple[Tensor, Tensor]:
    count = vectors.shape[2]
    places = cache.places(cache.positions(count))
    found = cache.append(1, vectors, places, cache.longest + count)
    cache.advance(count)
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.0), (torch.bfloat16, 0.01), (torch.int8, 0.01)])
def test_what_was_stored_comes_back(dtype: torch.dtype, tolerance: float) -> None:
    cache = empty(dtype)
    vectors = torch.rand(3, 4, 5, 4) + 0.5
    for part in vectors.split([2, 1, 2], dim=2):
        keys, values = append(cache, part)
    assert keys.dtype == cache.read_dtype(torch.float32)
    torch.testing.assert_close(keys.float(), vectors[:, :2], atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(values.float(), vectors[:, 2:], atol=tolerance, rtol=tolerance)
    assert cache.lengths.tolist() == [5, 5, 5]
    assert cache.longest == 5


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_is_read_in_float32_where_the_machine_cannot_multiply_it(
    monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: fast)
    keys, values = append(empty(torch.bfloat16), torch.rand(3, 4, 5, 4))
    assert keys.dtype == values.dtype == (torch.bfloat16 if fast else torch.float32)


def test_int8_takes_a_quarter_of_the_memory() -> None:
    wide = KVCache.empty(1, 1, 1, 512, 64, torch.int8, torch.device("cpu"))
    assert wide.data.nbytes * 4 == KVCache.empty(1, 1, 1, 512, 64, torch.float32, torch.device("cpu")).data.nbytes


def test_rows_in_int8_are_whole_tiles_and_come_back_from_any_of_them() -> None:
    cache = KVCache.empty(2, 3, 2, 300, 16, torch.int8, torch.device("cpu"))
    assert cache.capacity == 512
    vectors = torch.randn(3, 4, 290, 16, generator=torch.Generator().manual_seed(0))
    for part in vectors.split([1, 2, 14, 200, 60, 13], dim=2):
        keys, values = append(cache, part)
    torch.testing.assert_close(torch.cat([keys, values], dim=1), vectors, atol=0.02, rtol=0)
    assert not cache.data[0].any(), "only the layer that was named"


def test_a_large_vector_does_not_blur_its_neighbours_in_int8() -> None:
    cache = empty(torch.int8, rows=1)
    vectors = torch.rand(1, 4, 2, 4)
    vectors[:, :, 1] *= 1e4
    keys, _ = append(cache, vectors)
    torch.testing.assert_close(keys[:, :, 0], vectors[:, :2, 0], atol=0.005, rtol=0)


def test_rows_share_memory_and_stay_inside_their_part() -> None:
    cache = empty()
    part = cache.rows(1, 2)
    append(part, torch.ones(1, 4, 3, 4))
    assert cache.lengths.tolist() == [0, 3, 0]
    assert cache.longest == 0
    assert bool((cache.data[1, 1, :, :3] == 1).all())
    assert float(cache.data.sum()) == 4 * 3 * 4
    part.clear()
    assert cache.lengths.tolist() == [0, 0, 0]


def test_rows_of_different_lengths_write_to_their_own_places() -> None:
    cache = empty(rows=2)
    cache.advance(3, torch.tensor([3, 1]))
    append(cache, torch.ones(2, 4, 1, 4))
    assert cache.data[1, 0, 0, :, 0].tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert cache.data[1, 1, 0, :, 0].tolist() == [0, 1, 0, 0, 0, 0, 0]
