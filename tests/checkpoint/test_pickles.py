import argparse
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from longplay.checkpoint.pickles import read_pt, tensors_at
from longplay.errors import CheckpointError


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_tensors_come_back_mapped_and_tied(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": weight, "b": weight, "wide": torch.ones(1).expand(4, 5), "epoch": 3}, tmp_path / "m.pt")
    data = read_pt(tmp_path / "m.pt")
    assert torch.equal(data["a"], weight)
    assert data["a"].data_ptr() == data["b"].data_ptr()
    assert data["wide"].stride() == (0, 0)
    assert data["epoch"] == 3


def test_code_in_a_file_is_not_executed(tmp_path: Path) -> None:
    torch.save({"a": Trap(tmp_path / "executed")}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="more than tensors"):
        read_pt(tmp_path / "m.pt")
    assert not (tmp_path / "executed").exists()


class Opened:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_a_call_in_a_file_is_not_made(tmp_path: Path) -> None:
    torch.save({"a": Opened(tmp_path / "executed")}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="more than tensors.*open"):
        read_pt(tmp_path / "m.pt")
    assert not (tmp_path / "executed").exists()


class Settings(dict[str, int]):
    pass


def test_foreign_classes_beside_the_weights_are_read_as_dicts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hyper = {"args": argparse.Namespace(lr=1e-4), "settings": Settings(epoch=3)}
    torch.save({"state_dict": {"a": torch.ones(2)}, "hyper_parameters": hyper}, tmp_path / "m.pt")
    data = read_pt(tmp_path / "m.pt")
    assert torch.equal(data["state_dict"]["a"], torch.ones(2))
    assert vars(data["hyper_parameters"]["args"]) == {"lr": 1e-4}
    assert data["hyper_parameters"]["settings"] == {"epoch": 3}
    assert "argparse.Namespace" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_cut_file_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "m.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(CheckpointError, match=r"m\.pt: is truncated.*download it again"):
        read_pt(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"flow\.pt: is missing"):
        read_pt(tmp_path / "flow.pt")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="expected a dict"):
        read_pt(tmp_path / "list.pt")


def test_tensors_at_a_place(tmp_path: Path) -> None:
    data = {"state_dict": {"a": torch.zeros(1), "step": 3}, "epoch": 1}
    assert list(tensors_at(data, ("state_dict",), tmp_path)) == ["a"]
    with pytest.raises(CheckpointError, match="encoder holds no tensors"):
        tensors_at(data, ("encoder",), tmp_path)
