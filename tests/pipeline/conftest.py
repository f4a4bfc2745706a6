"""A pipeline over the tiny model, and recordings to go on from."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from longplay import Audio, GenerationOptions, Pipeline
from longplay.engine.piece import Piece
from longplay.models.lm import LM
from recordings import chord
from systems import save_tiny, store_in_int8


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model directory."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def released(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with its lm in int8, as `train release` stores it."""
    return store_in_int8(tiny, tmp_path_factory.mktemp("released") / "stored")


@pytest.fixture
def stored(released: Path, tmp_path: Path) -> Path:
    """A copy of `released`."""
    return Path(shutil.copytree(released, tmp_path / "stored"))


@pytest.fixture(scope="session")
def pipeline(tiny: Path) -> Pipeline:
    """The tiny model, loaded."""
    return Pipeline.load(tiny, device="cpu")


@pytest.fixture(scope="session")
def options() -> GenerationOptions:
    """Short and cheap."""
    return GenerationOptions(seconds=1.6, seed=1, num_steps=1)


@pytest.fixture(params=[(44_100, 2), (48_000, 1), (8_000, 3)], ids=str)
def recording(request: pytest.FixtureRequest) -> Audio:
    """3.1 s at several rates and numbers of channels."""
    return chord(3.1, *request.param)


@pytest.fixture
def quick_lm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random codes instead of the lm's, where they do not matter and there are many."""

    def generate(lm: LM, pieces: Sequence[Piece], options: GenerationOptions) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(pieces[0].seed)
        yield from torch.randint(lm.config.codebook_size, (1, pieces[0].frames), generator=generator).split(15, dim=1)

    monkeypatch.setattr("longplay.pipeline.steps.generate", generate)
