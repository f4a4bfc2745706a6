import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from longplay.checkpoint.build import build, skeleton
from longplay.checkpoint.store import save_tensors
from longplay.config import Config
from longplay.errors import CheckpointError
from longplay.nn.conv import WeightNormConv1d


class SmallConfig(Config):
    dim: int


class Small(nn.Module):
    """Each kind of state: parameters, weight norm, a stored and a computed buffer, an integer buffer."""

    window: torch.Tensor

    def __init__(self, config: SmallConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.dim, config.dim)
        self.conv = WeightNormConv1d(config.dim, config.dim, 3, padding=1)
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("window", torch.hann_window(config.dim), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.linear(x * self.window).mT)


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small(SmallConfig(dim=8)).eval()


def test_a_skeleton_has_no_weights_but_its_computed_buffers(small: Small) -> None:
    empty = skeleton(Small, SmallConfig(dim=8))
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert torch.equal(empty.window, small.window)


def test_the_built_model_computes_the_same_and_is_frozen(small: Small) -> None:
    built = build(Small, SmallConfig(dim=8), small.state_dict(), "small")
    x = torch.randn(1, 5, 8)
    assert torch.allclose(built(x), small(x), atol=1e-6)
    assert not built.training
    assert not any(parameter.requires_grad for parameter in built.parameters())
    assert isinstance(built.conv, nn.Conv1d)


def test_training_gets_the_weights_as_stored(small: Small) -> None:
    built = build(Small, SmallConfig(dim=8), small.state_dict(), "small", fold=False)
    assert built.state_dict().keys() == small.state_dict().keys()
    assert all(parameter.requires_grad for parameter in built.parameters())


def test_same_dtype_copies_nothing(small: Small) -> None:
    weights = small.state_dict()
    built = build(Small, SmallConfig(dim=8), weights, "small")
    assert built.linear.weight.data_ptr() == weights["linear.weight"].data_ptr()


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_any_stored_dtype_can_be_cast(small: Small, stored: torch.dtype) -> None:
    weights = {name: t.to(stored) if t.is_floating_point() else t for name, t in small.state_dict().items()}
    built = build(Small, SmallConfig(dim=8), weights, "small", torch.float32)
    assert {parameter.dtype for parameter in built.parameters()} == {torch.float32}
    assert built.state_dict()["steps"].dtype == torch.int64
    torch.testing.assert_close(built.linear.weight, weights["linear.weight"].float())


def test_mixed_dtypes_become_the_widest(small: Small) -> None:
    weights = dict(small.state_dict())
    weights["linear.weight"] = weights["linear.weight"].half()
    assert build(Small, SmallConfig(dim=8), weights, "small").linear.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"linear.weight": None}, r"misses linear\.weight"),
        ({"linear.extra": torch.zeros(1)}, r"has unknown linear\.extra"),
        ({"linear.bias": torch.zeros(9)}, r"wrong shapes: linear\.bias \[9\] instead of \[8\]"),
        ({f"surplus.{index}": torch.zeros(1) for index in range(5)}, r"surplus\.2 and 2 more"),
    ],
)
def test_tensors_that_do_not_match_are_named(
    small: Small, change: dict[str, torch.Tensor | None], message: str
) -> None:
    merged = {**small.state_dict(), **change}
    weights = {name: tensor for name, tensor in merged.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=message):
        build(Small, SmallConfig(dim=8), weights, "small")


SKELETONS = """
import sys
from longplay.checkpoint.build import skeleton
from longplay.models.codec import Codec, CodecConfig
from longplay.models.flow import Flow
from longplay.models.flow_config import FlowConfig
from longplay.models.lm import LM
from longplay.models.lm_config import LMConfig
from longplay.models.tokenizer import Tokenizer, TokenizerConfig

skeleton(Tokenizer, TokenizerConfig.published())
skeleton(LM, LMConfig.published("1.5b"))
skeleton(Flow, FlowConfig.published())
skeleton(Codec, CodecConfig.published(48000))
print("sympy" in sys.modules)
"""


def test_skeletons_do_not_wake_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", SKELETONS], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


MEASURE = """
import re, sys, torch
from torch import nn
from longplay.checkpoint.build import build
from longplay.checkpoint.pickles import read_pt
from longplay.checkpoint.store import load_tensors
from pathlib import Path

def model(layers):
    return nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(layers)))

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

path = Path(sys.argv[1])
torch.nn.functional.linear(torch.ones(1, 4), torch.ones(4, 4)).sum().item()
before = peak()
weights = load_tensors(path) if path.suffix == ".safetensors" else read_pt(path)
built = build(model, 12, weights, "model", torch.float32)
size = sum(p.numel() * p.element_size() for p in built.parameters())
for parameter in built.parameters():
    parameter.sum().item()
print((peak() - before) / size)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("suffix", "stored", "most"), [("pt", torch.float32, 1.1), ("safetensors", torch.float16, 1.6)]
)
def test_peak_memory_is_near_the_size_of_the_weights(
    tmp_path: Path, suffix: str, stored: torch.dtype, most: float
) -> None:
    weights = {
        f"{index}.{name}": torch.ones(shape, dtype=stored)
        for index in range(12)
        for name, shape in (("weight", (2048, 2048)), ("bias", (2048,)))
    }
    path = tmp_path / f"model.{suffix}"
    if suffix == "pt":
        torch.save(weights, path)
    else:
        save_tensors(path, weights)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], check=True, capture_output=True, text=True)
    assert 0.9 < float(done.stdout) < most
