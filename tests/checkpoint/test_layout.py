import json
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longplay.checkpoint.layout import describe, rebuild
from longplay.errors import CheckpointError


def there_and_back(value: Any) -> Any:
    kept: dict[str, Tensor] = {}

    def refer(keys: tuple[Any, ...], tensor: Tensor) -> str:
        for name, known in kept.items():
            if torch.equal(known, tensor):
                return name
        kept["/".join(map(str, keys))] = tensor
        return "/".join(map(str, keys))

    return rebuild(json.loads(json.dumps(describe(value, refer))), kept.__getitem__)


@pytest.mark.parametrize(
    "value",
    [
        {"epoch": 1, "loss": 0.1, "best": float("inf"), "path": "a/b", "none": None, "flag": True, 3: "number"},
        {"nested": [{"a": (1, 2)}, [], {1, 2}], "raw": b"\x00\xff"},
        OrderedDict([("b", 1), ("a", 2)]),
        {"size": torch.Size([1, 2]), "dtype": torch.bfloat16},
    ],
)
def test_plain_values_keep_type_and_order(value: Any) -> None:
    back = there_and_back(value)
    assert back == value
    assert type(back) is type(value)
    assert list(back) == list(value)
    assert [type(item) for item in back.values()] == [type(item) for item in value.values()]


def test_state_dict_metadata_survives() -> None:
    state = nn.Linear(2, 2).state_dict()
    back = there_and_back(state)
    assert vars(back) == vars(state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_ties_and_equal_copies_stay_what_they_were() -> None:
    weight = torch.arange(4.0)
    back = there_and_back({"a": weight, "tied": weight, "copy": weight.clone(), "parameter": nn.Parameter(weight * 2)})
    assert back["a"].data_ptr() == back["tied"].data_ptr()
    assert back["a"].data_ptr() != back["copy"].data_ptr()
    assert isinstance(back["parameter"], nn.Parameter)


def test_tensors_get_storages_of_their_own() -> None:
    back = there_and_back({"view": torch.arange(100.0)[10:12]})
    assert back["view"].untyped_storage().nbytes() == 8


def test_what_cannot_be_kept_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"callbacks\.best is a complex"):
        there_and_back({"callbacks": {"best": 1j}})
