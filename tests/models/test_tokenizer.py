from typing import Any

import pytest
import torch
from torch import Tensor

from golden_fixtures import Golden
from longplay.checkpoint.names import is_unused, to_native, to_published
from longplay.errors import ConfigError
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.nn.conv import fold_weight_norm
from longplay.nn.quantizers import CodebookConfig
from longplay.nn.seanet import SeanetConfig
from longplay.nn.vocos import VocosDecoder, VocosDecoderConfig
from published_tables import published_table
from systems import tiny_config

TOLERANCE = 1e-4
INPUTS = ("wav", "wav_exact", "wav_tiny")


def config_of(published: dict[str, Any]) -> TokenizerConfig:
    features, backbone, head = published["feature_extractor"], published["backbone"], published["head"]
    seanet = features["seanet"]
    encoder = SeanetConfig(
        strides=features["downsamples"][::-1],
        base_channels=seanet["n_filters"],
        kernel_size=seanet["kernel_size"],
        last_kernel_size=seanet["last_kernel_size"],
        residual_kernel_size=seanet["residual_kernel_size"],
        num_residual_layers=seanet["n_residual_layers"],
        dilation_base=seanet["dilation_base"],
        compress=seanet["compress"],
        num_lstm_layers=seanet["lstm"],
    )
    return TokenizerConfig(
        sample_rate=published["sample_rate"],
        hop_length=head["hop_length"],
        latent_dim=seanet["dimension"],
        codebook=CodebookConfig(size=features["vq_bins"], dim=seanet["dimension"]),
        encoder=encoder,
        decoder=VocosDecoderConfig(
            dim=backbone["dim"],
            intermediate_dim=backbone["intermediate_dim"],
            num_layers=backbone["num_layers"],
            num_conditions=backbone["adanorm_num_embeddings"],
            n_fft=head["n_fft"],
        ),
    )


def native(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {to_native("tokenizer", name): value for name, value in weights.items() if not is_unused("tokenizer", name)}


@pytest.fixture(scope="module")
def fixture(golden: type[Golden]) -> Golden:
    return golden("wavtokenizer")


@pytest.fixture
def tokenizer(fixture: Golden) -> Tokenizer:
    model = Tokenizer(config_of(fixture.config)).eval()
    model.load_state_dict(native(fixture.weights))
    return model


def assert_near(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.golden
@pytest.mark.parametrize("name", INPUTS)
@torch.inference_mode()
def test_encoder_reproduces_the_published_latents_and_codes(fixture: Golden, tokenizer: Tokenizer, name: str) -> None:
    wav = fixture.inputs[name].unsqueeze(1)
    assert_near(tokenizer.encoder(wav), fixture.outputs[f"{name}.emb"])
    codes = tokenizer.encode(wav)
    assert torch.equal(codes, fixture.outputs[f"{name}.codes"].squeeze(0))
    assert_near(tokenizer.codebook.decode(codes), fixture.outputs[f"{name}.features"])


@pytest.mark.golden
@torch.inference_mode()
def test_decoder_reproduces_every_published_stage(fixture: Golden, tokenizer: Tokenizer) -> None:
    codes, decoder = fixture.inputs["codes"].squeeze(0), tokenizer.decoder
    assert isinstance(decoder, VocosDecoder)
    features = tokenizer.codebook.decode(codes)
    assert_near(features, fixture.outputs["dec.features"])
    embedded = decoder.embed(features)
    assert_near(embedded, fixture.outputs["dec.embed"])
    assert_near(decoder.pos_net(embedded), fixture.outputs["dec.pos_net"])
    assert_near(decoder.backbone(features), fixture.outputs["dec.backbone"])
    assert_near(tokenizer.decode(codes).squeeze(1), fixture.outputs["dec.wav"])
    assert_near(decoder(features, condition=2).squeeze(1), fixture.outputs["dec.wav_bandwidth2"])


@pytest.mark.golden
@torch.inference_mode()
def test_a_single_frame_decodes_to_one_hop(fixture: Golden, tokenizer: Tokenizer) -> None:
    wav = tokenizer.decode(fixture.inputs["codes"].squeeze(0)[:, :1])
    assert_near(wav.squeeze(1), fixture.outputs["dec.wav_T1"])


@pytest.mark.golden
def test_the_fixture_has_the_variants_that_the_config_leaves_out(fixture: Golden) -> None:
    seanet = fixture.config["feature_extractor"]["seanet"]
    fixed = {"causal": False, "norm": "weight_norm", "pad_mode": "reflect", "true_skip": False, "activation": "ELU"}
    assert {key: seanet[key] for key in fixed} == fixed
    assert fixture.config["feature_extractor"]["num_quantizers"] == 1
    assert fixture.config["head"]["padding"] == "same"


@pytest.mark.golden
@torch.inference_mode()
def test_folding_weight_norm_keeps_codes_and_latents(fixture: Golden, tokenizer: Tokenizer) -> None:
    wav = fixture.inputs["wav"].unsqueeze(1)
    latents, codes = tokenizer.encoder(wav), tokenizer.encode(wav)
    fold_weight_norm(tokenizer)
    assert not [name for name in tokenizer.state_dict() if name.endswith(("weight_g", "weight_v"))]
    torch.testing.assert_close(tokenizer.encoder(wav), latents, rtol=0, atol=1e-6)
    assert torch.equal(tokenizer.encode(wav), codes)


def test_published_names_and_shapes_equal_the_table() -> None:
    expected = {name: shape for name, shape in published_table("4.1").items() if not is_unused("tokenizer", name)}
    with torch.device("meta"):
        model = Tokenizer(TokenizerConfig.published())
    actual = {to_published("tokenizer", name): tuple(value.shape) for name, value in model.state_dict().items()}
    assert actual == expected


@pytest.mark.parametrize("num_codebooks", [1, 3])
def test_codes_of_residual_codebooks_add_up_to_what_one_pass_quantizes(num_codebooks: int) -> None:
    config = tiny_config().tokenizer
    assert config is not None
    torch.manual_seed(0)
    model = Tokenizer(config.model_copy(update={"num_codebooks": num_codebooks})).eval()
    wav = torch.randn(2, 1, 3200)
    codes = model.encode(wav)
    assert codes.shape == ((2, 10) if num_codebooks == 1 else (2, 3, 10))
    estimate, quantized = model(wav)
    assert torch.equal(quantized.codes, codes.view(2, num_codebooks, 10))
    torch.testing.assert_close(model.decode(codes), estimate)
    assert model(wav, quantize=False)[1].codes.shape == quantized.codes.shape
    names = {name for name in model.state_dict() if name.endswith("embed")}
    assert names == (
        {"codebook.embed"} if num_codebooks == 1 else {f"codebook.layers.{n}.0.embed" for n in range(num_codebooks)}
    )


def test_a_hop_length_that_the_strides_do_not_make_is_refused() -> None:
    data = TokenizerConfig.published().dump() | {"hop_length": 300}
    with pytest.raises(ConfigError, match="hop_length 300 differs from 320"):
        TokenizerConfig.parse(data)
