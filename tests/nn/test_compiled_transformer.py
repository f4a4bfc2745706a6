"""Compiled int8 transformers against the modules that they stand for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from longplay.nn import processor
from longplay.nn.compiled_transformer import CompiledTransformers
from longplay.nn.masking import Padding
from longplay.nn.unet import TransformerBlock, UNet, UNetConfig

pytestmark = pytest.mark.skipif(not processor.can_compile(), reason="needs numba and an x86 processor with AVX2")


def blocks(dim: int, num_heads: int, head_dim: int, count: int = 2) -> list[TransformerBlock]:
    """Blocks whose norms are not trivial."""
    torch.manual_seed(0)
    config = UNetConfig(channels=(dim,), num_blocks=(1,), num_mid_blocks=0, num_heads=num_heads, head_dim=head_dim)
    made = [TransformerBlock(dim, config).eval().requires_grad_(False) for _ in range(count)]
    for block in made:
        for norm in (block.attention_norm, block.feed_forward_norm):
            nn.init.normal_(norm.weight, 1.0, 0.3)
            nn.init.normal_(norm.bias, 0.0, 0.3)
    return made


def compiled(modules: list[TransformerBlock]) -> CompiledTransformers:
    return CompiledTransformers([module.int8() for module in modules])


def run(modules: list[TransformerBlock], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x, None)
    return x


def off(made: Tensor, exact: Tensor, x: Tensor) -> float:
    """Of what the blocks add to x."""
    return ((made.float() - exact).norm() / (exact - x).norm()).item()


@pytest.mark.parametrize(
    ("dim", "num_heads", "head_dim", "frames"),
    [(64, 4, 16, 24), (64, 2, 32, 101), (128, 1, 64, 97), (256, 8, 64, 130), (64, 2, 32, 1000), (64, 1, 64, 0)],
)
def test_the_kernels_compute_what_the_modules_do(dim: int, num_heads: int, head_dim: int, frames: int) -> None:
    modules = blocks(dim, num_heads, head_dim)
    kernels = compiled(modules)
    frames = frames or next(number for number in range(1, 99) if kernels.takes(number))  # as few as they take
    x = torch.randn(2, frames, dim)
    made = kernels(x)
    exact = run(modules, x)
    assert off(made, exact, x) < 0.025
    half = [module.bfloat16() for module in modules]
    assert off(made, exact, x) < 2 * off(run(half, x.bfloat16()), exact, x)  # type: ignore[arg-type]


CLOSE = """
import torch
from test_compiled_transformer import blocks, compiled, off, run
modules, x = blocks(64, 2, 64), torch.randn(2, 101, 64)
assert off(compiled(modules)(x), run(modules, x), x) < 0.025
"""


@pytest.mark.parametrize("level", processor.levels())
def test_so_do_the_kernels_of_lesser_processors(level: str, tmp_path: Path) -> None:
    paths = {"PYTHONPATH": str(Path(__file__).parent), "LONGPLAY_CACHE": str(tmp_path)}
    environment = {**os.environ, **paths, "LONGPLAY_PROCESSOR": level}
    done = subprocess.run([sys.executable, "-c", CLOSE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "kernels").glob("*.bin"))) == 1


def test_attention_that_looks_at_one_frame_alone_finds_it() -> None:
    """Scores far apart: the largest takes all, and nothing overflows."""
    modules = blocks(64, 1, 64, count=1)
    attention = modules[0].attention
    for projection in (attention.to_q, attention.to_k):
        projection.weight.copy_(40 * torch.eye(64))
    x = torch.randn(1, 200, 64) * 3
    made, exact = compiled(modules)(x), run(modules, x)
    assert torch.isfinite(made).all()
    assert off(made, exact, x) < 0.03


def test_bits_depend_neither_on_threads_nor_on_neighbours_nor_on_the_layout() -> None:
    kernels = compiled(blocks(64, 2, 32))
    x = torch.randn(3, 77, 64)
    before = torch.get_num_threads()
    try:
        made = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(kernels(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])
    assert torch.equal(made[0][1:2], kernels(x[1:2]))
    assert torch.equal(made[0], kernels(x.transpose(1, 2).contiguous().transpose(1, 2)))


def test_inputs_are_not_changed_and_their_type_is_kept() -> None:
    kernels = compiled(blocks(64, 2, 32))
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(1, 40, 64).to(dtype)
        kept = x.clone()
        assert kernels(x).dtype == dtype
        assert torch.equal(x, kept)


def test_a_silent_frame_has_no_scale_and_stays_finite() -> None:
    modules = blocks(64, 2, 32)
    x = torch.zeros(1, 30, 64)
    assert torch.isfinite(compiled(modules)(x)).all()


def test_an_estimator_takes_the_kernels_for_whole_windows_only() -> None:
    torch.manual_seed(0)
    config = UNetConfig(channels=(64, 64), num_blocks=(0, 1), num_mid_blocks=1, num_heads=2, head_dim=32)
    estimator = UNet(64, config).eval().requires_grad_(False)
    x, mu, t = torch.randn(1, 64, 80), torch.randn(1, 64, 80), torch.tensor([0.5])
    full = Padding.of(torch.tensor([80]), 80)
    exact, padded = estimator(x, mu, t), estimator(x, mu, t, full)
    few = estimator(x[..., :8], mu[..., :8], t)
    estimator.use_int8()
    made = estimator(x, mu, t)
    assert not torch.equal(made, exact)
    torch.testing.assert_close(made, exact, atol=0.05, rtol=0.05)
    assert torch.equal(estimator(x, mu, t, full), padded)
    assert torch.equal(estimator(x[..., :8], mu[..., :8], t), few)
    estimator.use_int8(False)
    assert torch.equal(estimator(x, mu, t), exact)


def test_sizes_that_the_kernels_cannot_divide_stay_as_they_are() -> None:
    config = UNetConfig(channels=(32,), num_blocks=(1,), num_mid_blocks=1, num_heads=2, head_dim=32)
    estimator = UNet(16, config).eval().requires_grad_(False)
    x, t = torch.randn(1, 16, 60), torch.tensor([0.5])
    exact = estimator(x, x, t)
    estimator.use_int8()
    assert torch.equal(estimator(x, x, t), exact)
