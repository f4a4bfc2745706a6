from pathlib import Path

import pytest
import torch

from longplay.checkpoint.quantized import narrow, read_int4, read_int8, widen
from longplay.checkpoint.store import load_tensors, save_tensors
from longplay.errors import CheckpointError
from longplay.nn.int4 import round_to_int4
from longplay.nn.linear import Weights
from longplay.nn.quantized import Int8Weights

APART = torch.tensor([2, 5])


def weights(apart: torch.Tensor = APART) -> tuple[torch.Tensor, Int8Weights]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 16, generator=generator).half().float()
    return weight, Int8Weights.of(Weights(weight), apart)


@pytest.mark.parametrize("apart", [APART, APART[:0]])
def test_a_weight_comes_back_from_a_file_as_it_was_rounded(tmp_path: Path, apart: torch.Tensor) -> None:
    weight, made = weights(apart)
    other = torch.randn(3, 2)
    save_tensors(tmp_path / "a.safetensors", narrow("a.weight", made) | {"a.bias": other})
    stored = load_tensors(tmp_path / "a.safetensors")
    again = read_int8(stored, "a.weight", "a")
    for part, value in vars(made).items():
        assert value is None or torch.equal(getattr(again, part), value)
    wide = widen(stored, "a")
    assert list(wide) == sorted(wide) == ["a.bias", "a.weight"]
    assert torch.equal(wide["a.bias"], other)
    assert wide["a.weight"].dtype == torch.half
    assert torch.equal(wide["a.weight"], made.dequantize().half())
    assert torch.equal(wide["a.weight"][:, apart].float(), weight[:, apart])
    step = weight.index_fill(1, apart, 0.0).abs().amax(dim=1, keepdim=True) / 127
    assert ((wide["a.weight"] - weight).abs() <= 0.52 * step).all()


def test_rounding_again_changes_nothing() -> None:
    _, made = weights()
    again = Int8Weights.of(Weights(made.dequantize()), APART)
    assert torch.equal(again.values, made.values)
    torch.testing.assert_close(again.scales, made.scales)


@pytest.mark.parametrize(
    "change",
    [
        {"w.scales": None},
        {"w.scales": torch.ones(5)},
        {"w.apart": None},
        {"w.columns": None},
        {"w.apart": torch.tensor([2, 16])},
        {"w.apart": torch.tensor([2.0, 5.0])},
    ],
)
def test_parts_that_do_not_fit_are_named(change: dict[str, torch.Tensor | None]) -> None:
    tensors = {key: value for key, value in {**narrow("w", weights()[1]), **change}.items() if value is not None}
    with pytest.raises(CheckpointError, match="here: tensor w is in int8, but its scales do not fit it"):
        widen(tensors, "here")


def test_a_part_of_nothing_is_left_for_the_check_to_find() -> None:
    assert list(widen({"w.scales": torch.ones(3)}, "here")) == ["w.scales"]


def test_layers_are_stacked_only_if_they_keep_the_same_channels_apart() -> None:
    (_, one), (_, other) = weights(), weights(APART[:1])
    stacked = Int8Weights.stack([one, one], None)
    assert all(torch.equal(part.dequantize(), one.dequantize()) for part in stacked.split([6, 6]))
    with pytest.raises(ValueError, match="different channels"):
        Int8Weights.stack([one, other], None)


@pytest.mark.parametrize("apart", [APART, APART[:0]])
def test_int4_comes_back_from_a_file(tmp_path: Path, apart: torch.Tensor) -> None:
    weight = torch.randn(8, 70, generator=torch.Generator().manual_seed(0)).half().float()
    made = round_to_int4(Weights(weight), apart)
    save_tensors(tmp_path / "a.safetensors", narrow("w", made))
    again = read_int4(load_tensors(tmp_path / "a.safetensors"), "w", 70, "a")
    assert torch.equal(again.dequantize(), made.dequantize())
    assert made.nibbles.nbytes + made.groups.nbytes == 8 * (64 + 4)


@pytest.mark.parametrize(
    "change",
    [
        {"w.groups": None},
        {"w.groups": torch.zeros(8, 3, dtype=torch.uint8)},
        {"w.groups": torch.zeros(8, 4)},
        {"w": torch.zeros(8, 32, dtype=torch.uint8)},
        {"w.scales": None},
        {"w.columns": None},
        {"w.apart": torch.tensor([2, 70])},
    ],
)
def test_parts_of_int4_that_do_not_fit_are_named(change: dict[str, torch.Tensor | None]) -> None:
    stored = narrow("w", round_to_int4(Weights(torch.randn(8, 70)), APART))
    tensors = {key: value for key, value in {**stored, **change}.items() if value is not None}
    with pytest.raises(CheckpointError, match="here: tensor w is in int4, but its scales do not fit it"):
        read_int4(tensors, "w", 70, "here")
