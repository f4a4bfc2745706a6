from typing import Any

import pytest
import torch
from torch import Tensor

from golden_fixtures import Golden
from longplay.checkpoint.names import to_native, to_published
from longplay.errors import ConfigError
from longplay.models.codec import Codec, CodecConfig
from longplay.nn.conv import fold_weight_norm
from longplay.nn.hifigan import HifiganEncoderConfig, HifiganGeneratorConfig
from longplay.nn.quantizers import CodebookConfig, GroupResidualConfig
from published_tables import published_table

TOLERANCE = 1e-4
NUM_LAYERS = 2  # residual layers: `quantizer_modules` and `quantizer_modules2`


def config_of(published: dict[str, Any]) -> CodecConfig:
    h = published["h"]
    strides, kernel_sizes = tuple(h["upsample_rates"]), tuple(h["upsample_kernel_sizes"])
    block_kernels = tuple(h["resblock_kernel_sizes"])
    dilations = tuple(tuple(group) for group in h["resblock_dilation_sizes"])
    encoder = HifiganEncoderConfig(
        base_channels=published["encoder_base_channels"],
        strides=strides[::-1],
        kernel_sizes=kernel_sizes[::-1],
        resblock=h["resblock"],
        resblock_kernel_sizes=block_kernels[::-1],
        resblock_dilations=dilations[::-1],
    )
    decoder = HifiganGeneratorConfig(
        channels=h["upsample_initial_channel"],
        strides=strides,
        kernel_sizes=kernel_sizes,
        resblock=h["resblock"],
        resblock_kernel_sizes=block_kernels,
        resblock_dilations=dilations,
    )
    codebook = CodebookConfig(
        size=h["n_codes"],
        dim=published["latent_dim"] // h["n_code_groups"],
        ema=False,
        codebook_loss=h["codebook_loss_lambda"],
        commitment_loss=h["commitment_loss_lambda"],
    )
    return CodecConfig(
        sample_rate=h["sampling_rate"],
        hop_length=encoder.hop_length,
        quantizer=GroupResidualConfig(num_layers=NUM_LAYERS, num_groups=h["n_code_groups"], codebook=codebook),
        encoder=encoder,
        decoder=decoder,
    )


def native(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {to_native("codec", name): value for name, value in weights.items()}


@pytest.fixture(scope="module")
def fixture(golden: type[Golden]) -> Golden:
    return golden("hificodec")


@pytest.fixture
def codec(fixture: Golden) -> Codec:
    model = Codec(config_of(fixture.config)).eval()
    model.load_state_dict(native(fixture.weights))
    return model


def assert_near(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["wav", "wav_odd"])
@torch.inference_mode()
def test_encoder_and_quantizer_reproduce_the_published_ones(fixture: Golden, codec: Codec, name: str) -> None:
    wav, expected = fixture.inputs[name].unsqueeze(1), fixture.outputs
    latents = codec.encoder(wav)
    assert_near(latents, expected[f"{name}.enc"])
    quantized = codec.quantizer(latents)
    assert_near(quantized.values, expected[f"{name}.quantized"])
    assert_near(quantized.loss, expected[f"{name}.loss"])
    for codes in (codec.encode(wav), quantized.codes):
        assert torch.equal(codes.mT, expected[f"{name}.codes"])
        assert torch.equal(codes.mT, expected[f"{name}.codes_from_3d"])


@pytest.mark.golden
@torch.inference_mode()
def test_embed_and_decode_reproduce_the_published_ones(fixture: Golden, codec: Codec) -> None:
    latents = codec.embed(fixture.inputs["codes"].mT)
    assert_near(latents, fixture.outputs["embed"])
    assert_near(codec.decode(latents), fixture.outputs["decode"])
    assert_near(codec.decode(fixture.inputs["latent"]), fixture.outputs["generator"])


@pytest.mark.golden
@torch.inference_mode()
def test_folding_weight_norm_keeps_latents_and_audio(fixture: Golden, codec: Codec) -> None:
    wav, latents = fixture.inputs["wav"].unsqueeze(1), fixture.inputs["latent"]
    before = codec.encoder(wav), codec.decode(latents)
    fold_weight_norm(codec)
    assert not [name for name in codec.state_dict() if name.endswith(("weight_g", "weight_v"))]
    torch.testing.assert_close((codec.encoder(wav), codec.decode(latents)), before, rtol=0, atol=1e-6)


def test_published_names_and_shapes_equal_the_tables() -> None:
    parts = {"encoder": "4.5", "quantizer": "4.6", "generator": "4.7"}
    expected = {
        f"{part}.{name}": shape for part, section in parts.items() for name, shape in published_table(section).items()
    }
    with torch.device("meta"):
        model = Codec(CodecConfig.published(sample_rate=48000))
    actual = {to_published("codec", name): tuple(value.shape) for name, value in model.state_dict().items()}
    assert actual == expected


@pytest.mark.parametrize(("sample_rate", "frame_rate"), [(24000, 75), (48000, 150)])
def test_published_frame_rates(sample_rate: int, frame_rate: int) -> None:
    config = CodecConfig.published(sample_rate)
    assert (config.frame_rate, config.num_codebooks, config.latent_dim) == (frame_rate, 4, 512)


def test_a_hop_length_that_the_strides_do_not_make_is_refused() -> None:
    data = CodecConfig.published(48000).dump() | {"hop_length": 300}
    with pytest.raises(ConfigError, match="hop_length 300 differs from 320"):
        CodecConfig.parse(data)
