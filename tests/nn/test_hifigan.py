from typing import Any, Literal

import pytest
import torch

from longplay.errors import AudioError, ConfigError
from longplay.nn import processor
from longplay.nn.conv import fold_weight_norm
from longplay.nn.hifigan import HifiganEncoder, HifiganEncoderConfig, HifiganGenerator, HifiganGeneratorConfig

SIZES: dict[str, Any] = {
    "strides": (3, 2),
    "kernel_sizes": (7, 4),
    "resblock_kernel_sizes": (3, 5),
    "resblock_dilations": ((1, 3), (1, 2)),
}
ENCODER = HifiganEncoderConfig(base_channels=8, **SIZES)
HOP = ENCODER.hop_length


@pytest.mark.parametrize(("samples", "frames"), [(HOP, 1), (2 * HOP - 1, 1), (2 * HOP, 2), (5 * HOP + 3, 5)])
def test_the_encoder_drops_a_partial_hop(samples: int, frames: int) -> None:
    latents = HifiganEncoder(ENCODER, latent_dim=6)(torch.randn(2, 1, samples))
    assert latents.shape == (2, 6, frames)
    assert latents.isfinite().all()


def test_less_than_one_hop_is_refused() -> None:
    with pytest.raises(AudioError, match=f"{HOP - 1} samples are less than one codec frame; give at least {HOP}"):
        HifiganEncoder(ENCODER, latent_dim=6)(torch.randn(1, 1, HOP - 1))


@pytest.mark.parametrize("resblock", ["1", "2"])
@pytest.mark.parametrize(("strides", "kernel_sizes"), [((3, 2), (7, 4)), ((8, 5), (16, 11)), ((5, 2, 2), (5, 2, 4))])
def test_the_receptive_field_is_exact(
    strides: tuple[int, ...], kernel_sizes: tuple[int, ...], resblock: Literal["1", "2"]
) -> None:
    sizes = SIZES | {"strides": strides, "kernel_sizes": kernel_sizes, "resblock": resblock}
    config = HifiganGeneratorConfig(channels=16, **sizes)
    generator = HifiganGenerator(config, latent_dim=3).double()
    centre = generator.receptive_field + 2
    latents = torch.randn(1, 3, 2 * centre + 1, dtype=torch.float64, requires_grad=True)
    wav = generator(latents)
    assert wav.shape == (1, 1, latents.shape[-1] * config.hop_length)
    # one random weight for each sample of the centre frame, so that nothing cancels
    samples = wav[0, 0].unflatten(0, (-1, config.hop_length))[centre]
    (gradient,) = torch.autograd.grad((samples * torch.randn_like(samples)).sum(), latents)
    reached = gradient[0].abs().sum(0).nonzero().squeeze(1) - centre
    assert reached.abs().max() == generator.receptive_field


def test_a_window_with_that_much_context_decodes_as_the_whole() -> None:
    generator = HifiganGenerator(HifiganGeneratorConfig(channels=16, **SIZES), latent_dim=3)
    latents, context = torch.randn(1, 3, 60), generator.receptive_field
    window = generator(latents[..., 25 - context : 35 + context])[..., context * HOP : -context * HOP]
    torch.testing.assert_close(window, generator(latents)[..., 25 * HOP : 35 * HOP], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_sizes": (8, 4)}, "kernel size 8 must exceed its stride 3 by an even number"),
        ({"kernel_sizes": (7,)}, "1 kernel_sizes for 2 strides"),
        ({"resblock_kernel_sizes": (3, 4)}, "residual block kernel size 4 must be odd"),
        ({"resblock_dilations": ((1, 3),)}, "resblock_dilations needs one tuple for each"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HifiganGeneratorConfig.parse({"channels": 16} | SIZES | change)


needs_kernels = pytest.mark.skipif(not processor.can_compile(), reason="needs numba and an x86 processor with AVX2")


def folded(channels: int, **changes: Any) -> HifiganGenerator:
    torch.manual_seed(0)
    generator = HifiganGenerator(HifiganGeneratorConfig(channels=channels, **SIZES | changes), latent_dim=16)
    fold_weight_norm(generator)
    return generator.eval().requires_grad_(False)


@needs_kernels
@pytest.mark.parametrize("resblock", ["1", "2"])
def test_kernels_decode_what_torch_decodes(resblock: Literal["1", "2"]) -> None:
    generator, latents = folded(64, resblock=resblock), torch.randn(2, 16, 40)
    exact, short = generator(latents), generator(latents[..., :9])
    generator.use_kernels()
    assert generator.compiled is not None
    made = generator(latents)
    assert exact.square().mean().sqrt() > 0.01
    torch.testing.assert_close(made, exact, rtol=1e-4, atol=1e-6)
    assert torch.equal(generator(latents[..., :9]), short)  # too few frames for a block: by torch


@needs_kernels
def test_a_window_decodes_as_the_whole_bit_by_bit_with_kernels() -> None:
    generator = folded(64)
    generator.use_kernels()
    latents, context = torch.randn(1, 16, 60), generator.receptive_field
    window = generator(latents[..., 25 - context : 35 + context])[..., context * HOP : -context * HOP]
    assert torch.equal(window, generator(latents)[..., 25 * HOP : 35 * HOP])


@needs_kernels
def test_sizes_that_the_kernels_do_not_take_stay_with_torch() -> None:
    generator = folded(16)  # 4 channels at the end
    generator.use_kernels()
    assert generator.compiled is None
