from pathlib import Path

import pytest
import torch

from longplay.checkpoint.published import PARTS, check_complete, check_tied, native_name, same_bits
from longplay.errors import CheckpointError

TOKENIZER, LM = (next(part for part in PARTS if part.model == model) for model in ("tokenizer", "lm"))


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (torch.tensor([torch.nan]), torch.tensor([torch.nan]), True),
        (torch.tensor([0.0]), torch.tensor([-0.0]), False),
        (torch.ones(1).expand(2, 2), torch.ones(2, 2), True),
        (torch.ones(2), torch.ones(2).half(), False),
        (torch.ones(2), torch.ones(1, 2), False),
    ],
)
def test_same_bits(a: torch.Tensor, b: torch.Tensor, same: bool) -> None:
    assert same_bits(a, b) is same


def test_a_transposed_view_is_not_the_same() -> None:
    square = torch.arange(4.0).reshape(2, 2)
    assert not same_bits(square, square.T)


def test_discriminators_and_dead_layers_are_left_out(tmp_path: Path) -> None:
    assert native_name(TOKENIZER, "multiperioddisc.discriminators.0.weight", tmp_path) is None
    assert native_name(TOKENIZER, "feature_extractor.encodec.decoder.model.0.conv.conv.bias", tmp_path) is None
    assert native_name(LM, "spk_embed_affine_layer.weight", tmp_path) is None
    assert native_name(LM, "llm_decoder.weight", tmp_path) == "audio_head.weight"


def test_an_unknown_tensor_is_named_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"llm\.pt: tensor 'adapter\.weight' is not part of"):
        native_name(LM, "adapter.weight", tmp_path / "llm.pt")


def test_one_tied_name_is_enough(tmp_path: Path) -> None:
    check_tied({"text_embedding.weight": torch.ones(2)}, tmp_path)


def test_every_missing_file_is_listed(tmp_path: Path) -> None:
    (tmp_path / "inspiremusic.yaml").touch()
    with pytest.raises(CheckpointError, match=r"misses config\.json, .*llm\.pt, flow\.pt"):
        check_complete(tmp_path)
