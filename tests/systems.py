"""A complete model of very small width with random weights: pipelines run on it in a moment."""

from pathlib import Path

import torch

from longplay.checkpoint.adapter import AdapterConfig, save_adapter
from longplay.checkpoint.names import ModelName
from longplay.checkpoint.store import SystemConfig, load_config, save_native
from longplay.checkpoint.system import System, load_system
from longplay.models.codec import Codec, CodecConfig
from longplay.models.flow import Flow
from longplay.models.flow_config import FlowConfig
from longplay.models.lm import LM
from longplay.models.lm_config import LMConfig
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.nn.conformer import ConformerConfig
from longplay.nn.quantizers import CodebookConfig, GroupResidualConfig
from longplay.nn.spectral import SpectralDecoderConfig, SpectralEncoderConfig
from longplay.nn.unet import UNetConfig
from longplay.text import TextTokenizer
from longplay.train.release import release

CODEBOOK_SIZE = 64
LATENT_DIM = 16


def tiny_config() -> SystemConfig:
    """Spectral tokenizer (24 kHz, 75 Hz) and codec (48 kHz, 150 Hz), an lm of width 32, a flow of width 16."""
    encoder = SpectralEncoderConfig(n_fft=640, dim=16, intermediate_dim=32, num_layers=1)
    decoder = SpectralDecoderConfig(n_fft=640, dim=16, intermediate_dim=32, num_layers=1)
    return SystemConfig(
        name="tiny",
        licence="none: random numbers",
        provenance="tests",
        tokenizer=TokenizerConfig(
            sample_rate=24000,
            hop_length=320,
            latent_dim=LATENT_DIM,
            codebook=CodebookConfig(size=CODEBOOK_SIZE, dim=8),
            encoder=encoder,
            decoder=decoder,
        ),
        lm=LMConfig(
            text_vocab_size=300,
            codebook_size=CODEBOOK_SIZE,
            code_rate=75,
            num_labels=5,
            dim=32,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            intermediate_dim=48,
        ),
        flow=FlowConfig(
            codebook_size=CODEBOOK_SIZE,
            code_rate=75,
            frame_rate=150,
            input_dim=8,
            latent_dim=LATENT_DIM,
            encoder=ConformerConfig(dim=16, num_layers=1, num_heads=2, hidden_dim=32),
            regulator_layers=1,
            estimator=UNetConfig(channels=(16, 16), num_blocks=(0, 1), num_mid_blocks=1, num_heads=2, head_dim=8),
        ),
        codec=CodecConfig(
            sample_rate=48000,
            hop_length=320,
            quantizer=GroupResidualConfig(codebook=CodebookConfig(size=32, dim=LATENT_DIM // 2)),
            encoder=encoder,
            decoder=decoder,
        ),
    )


def tiny_models(seed: int = 0) -> dict[ModelName, torch.nn.Module]:
    """The four models of `tiny_config`, randomly initialised."""
    config = tiny_config()
    assert config.tokenizer is not None
    assert config.lm is not None
    assert config.flow is not None
    assert config.codec is not None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {
            "tokenizer": Tokenizer(config.tokenizer).eval(),
            "lm": LM(config.lm).eval(),
            "flow": Flow(config.flow).eval(),
            "codec": Codec(config.codec).eval(),
        }


def tiny_weights(seed: int = 0) -> dict[ModelName, dict[str, torch.Tensor]]:
    """State dicts of `tiny_models`."""
    return {name: dict(model.state_dict()) for name, model in tiny_models(seed).items()}


def tiny_text_tokenizer() -> TextTokenizer:
    """Bytes and a few merges."""
    return TextTokenizer.train(["calm piano and strings", "fast drums and bass"] * 4, vocab_size=280)


def save_tiny(directory: Path, seed: int = 0) -> Path:
    """Write the tiny model as a native directory."""
    save_native(directory, tiny_config(), tiny_weights(seed), tiny_text_tokenizer().to_json().encode())
    return directory


def save_tiny_adapter(directory: Path, model: Path, seed: int = 0) -> Path:
    """Write a strong adapter of all projections of the tiny model in `model`."""
    tensors = {}
    generator = torch.Generator().manual_seed(seed)
    for name, weight in tiny_weights()["lm"].items():
        if name.startswith("layers.") and name.endswith("_proj.weight"):
            out_features, in_features = weight.shape
            target = name.removesuffix(".weight")
            tensors[f"{target}.lora_A.weight"] = torch.randn(4, in_features, generator=generator)
            tensors[f"{target}.lora_B.weight"] = 0.1 * torch.randn(out_features, 4, generator=generator)
    config = AdapterConfig(base=str(model), base_digest=load_system(model).lm_digest, rank=4, alpha=8)
    save_adapter(directory, config, tensors)
    return directory


def save_residual(directory: Path, num_codebooks: int = 3) -> Path:
    """A native directory with the tokenizer of `tiny_config` alone, of several codebooks."""
    tokenizer = tiny_config().tokenizer
    assert tokenizer is not None
    config = tokenizer.model_copy(update={"num_codebooks": num_codebooks})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = Tokenizer(config).state_dict()
    save_native(directory, SystemConfig(name="residual", tokenizer=config), {"tokenizer": weights})
    return directory


def tiny_system(directory: Path, seed: int = 0) -> System:
    """The tiny model, saved to the new `directory` and loaded from there."""
    return load_system(save_tiny(directory, seed))


def store_in_int8(source: Path, directory: Path) -> Path:
    """The native model in `source`, written to the new `directory` with its lm in int8."""
    about = {"name": "tiny", "licence": "none: random numbers", "provenance": "tests"}
    release(dict.fromkeys(load_config(source).present, source), directory, **about, lm_precision="int8")
    return directory
