"""Stages `tokenizer` and `codec`: autoencoders trained by reconstruction, and later adversarially.

Both models share one interface here: `forward(wav)` gives the reconstruction and what the quantizer did.
"""

import logging
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from longplay.checkpoint.store import load_weights
from longplay.config import Config
from longplay.data.crops import Crops
from longplay.errors import CheckpointError, ConfigError
from longplay.models.codec import Codec, CodecConfig
from longplay.models.discriminators import DiscriminatorConfig, Discriminators
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.nn.quantizers import MOVING, Codebook, CodeUsage, Quantized
from longplay.nn.spectral import ComponentsEncoderConfig, SpectralDecoderConfig
from longplay.train.components import start_from_components
from longplay.train.export import export_model
from longplay.train.loop_config import LoopConfig
from longplay.train.losses import (
    ReconstructionConfig,
    ReconstructionLoss,
    SpectrumConfig,
    SpectrumLoss,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)
from longplay.train.made_latents import MadeLatents
from longplay.train.samples import write_sample
from longplay.train.stage import Batch, Losses

logger = logging.getLogger(__name__)


class AdversarialConfig(Config):
    """GAN part: from `start_step` on; weights of the adversarial and the feature-matching loss."""

    start_step: int = Field(ge=0)
    discriminators: DiscriminatorConfig = DiscriminatorConfig()
    learning_rate: float = Field(default=2e-4, gt=0)
    adversarial: float = 1.0
    feature_matching: float = 2.0


class AudioStageConfig(Config):
    """Everything of a `tokenizer` or `codec` run.

    Before `quantize_from_step` the latents pass unquantized. The codebooks then start on latents that already mean
    something; started at step 0 they collapse to a dozen codes (docs/experiments.md, 2026-11-22).

    Attributes:
        init: a model directory whose model this run starts from; layers of the decoder that it lacks, or has in another
            size, start afresh. `quantize_from_step` is then usually 0.
        unquantized_share: of the rows of a batch, whose latents pass the codebooks by: a decoder that follows a flow meets such latents.
        made_by: a model directory whose tokenizer and flow make the latents of those rows, as they come in generation; codec only.
        spectrum: train encoder, codebooks and the magnitudes of a spectral decoder, without a waveform.
        freeze_encoder: train the decoder alone. Codes and latents stay what they are, so an lm and a flow that learnt
            from them remain good: what follows a `spectrum` run, and how a GAN comes last.
    """

    stage: Literal["tokenizer", "codec"]
    tokenizer: TokenizerConfig | None = None
    codec: CodecConfig | None = None
    crop_seconds: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=16, gt=0)
    quantize_from_step: int = Field(default=300, ge=0)
    unquantized_share: float = Field(default=0.0, ge=0, lt=1)
    held_out_crops: int = Field(default=16, gt=0)
    held_out_seconds: float = Field(default=4.0, gt=0)
    init: Path | None = None
    made_by: Path | None = None
    spectrum: SpectrumConfig | None = None
    freeze_encoder: bool = False
    loss: ReconstructionConfig = ReconstructionConfig()
    adversarial: AdversarialConfig | None = None
    loop: LoopConfig

    @model_validator(mode="after")
    def _components_are_computed(self) -> "AudioStageConfig":
        encoder = self.codec.encoder if self.codec else None
        if self.codec is None or self.init is not None or not isinstance(encoder, ComponentsEncoderConfig):
            return self
        decoder = self.codec.decoder
        if self.spectrum is None:
            raise ValueError(
                "encoder of kind components: its weights are computed by a run with spectrum; set it, or init"
            )
        if not isinstance(decoder, SpectralDecoderConfig) or not decoder.shortcut or decoder.n_fft != encoder.n_fft:
            raise ValueError(
                "encoder of kind components: its weights are computed with those of a spectral decoder's shortcut; "
                f"set decoder to kind: spectral, shortcut: true, n_fft: {encoder.n_fft}, or set init"
            )
        return self

    @model_validator(mode="after")
    def _latents_are_made_for_a_decoder(self) -> "AudioStageConfig":
        if self.made_by is None:
            return self
        if self.stage != "codec" or not self.unquantized_share or self.spectrum is not None or not self.freeze_encoder:
            raise ValueError(
                "made_by gives a codec's decoder latents of a flow: set stage to codec, freeze_encoder to true, "
                "unquantized_share to their share, and leave spectrum out"
            )
        return self

    @property
    def model(self) -> TokenizerConfig | CodecConfig:
        """The config of the model that this stage trains."""
        model = self.tokenizer if self.stage == "tokenizer" else self.codec
        if model is None:
            raise ValueError(f"the config of stage {self.stage!r} has no section {self.stage!r}")
        return model


class AudioStage:
    """Trains one autoencoder on crops of audio files."""

    def __init__(
        self,
        config: AudioStageConfig,
        train_files: list[tuple[Path, float]],
        held_out_files: list[tuple[Path, float]],
    ) -> None:
        self.name = config.stage
        self.config = config
        model = config.model
        self.model: Tokenizer | Codec = Tokenizer(model) if isinstance(model, TokenizerConfig) else Codec(model)
        if config.init is not None:
            _start_from(self.model, config.init, config.stage)
        if config.freeze_encoder:
            self.model.requires_grad_(False)
            self.model.decoder.requires_grad_(True)
        self.crops = Crops(train_files, model.sample_rate, config.crop_seconds)
        self.held_out = Crops(held_out_files, model.sample_rate, config.held_out_seconds, "valid")
        self.reconstruction = ReconstructionLoss(config.loss, model.sample_rate)
        self.spectrum = _spectrum_loss(config)
        if config.init is None and self.spectrum is not None:
            start_from_components(self.model, self.crops.batch, self.spectrum.weight.flatten())
        self.made: MadeLatents | None = None
        if config.made_by is not None and isinstance(model, CodecConfig):
            self.made = MadeLatents(config.made_by, model)
        self.others = nn.ModuleDict()
        self.learning_rates: dict[str, float] = {}
        if config.adversarial:
            self.others["discriminators"] = Discriminators(config.adversarial.discriminators)
            self.learning_rates["discriminators"] = config.adversarial.learning_rate
        self.blocks = [self.model.decoder] if config.freeze_encoder else [self.model.encoder, self.model.decoder]
        self.partial_gradients = True  # the codebooks wait for quantize_from_step, the discriminators for start_step
        self.batch_size = config.batch_size

    def batch(self, step: int, rows: slice) -> Batch:
        """`wav` [B, 1, S]."""
        return {"wav": self.crops.batch(self.config.loop.seed, step, self.batch_size, rows=rows)}

    def losses(self, step: int, batch: Batch) -> Losses:
        """Reconstruction, quantizer and, once they have started, adversarial terms."""
        wav = batch["wav"]
        if self.config.freeze_encoder:
            self.model.eval()  # a codebook in training follows its latents
        if self.spectrum is not None:
            return self._spectrum_losses(step, wav)
        quantize, unquantized = self._quantization(step, wav)
        made = {} if self.made is None else {"made": self.made(wav[:unquantized])}
        estimate, quantized = self.model(wav, quantize, unquantized, **made)
        estimate = estimate[..., : wav.shape[-1]]
        with torch.autocast(wav.device.type, enabled=False):
            terms = self.reconstruction.to(wav.device)(estimate, wav) | {"quantizer": quantized.loss}
        learning: dict[str, Tensor] = {}
        gan = self.config.adversarial
        if gan and step >= gan.start_step:
            learning["discriminators"], adversarial = self._adversarial_terms(gan, wav, estimate)
            terms |= adversarial
        learning["model"] = torch.stack(list(terms.values())).sum()
        metrics = self._metrics(terms, quantized)
        if "discriminators" in learning:
            metrics["discriminator"] = learning["discriminators"].detach()
        return Losses(learning, metrics)

    def _spectrum_losses(self, step: int, wav: Tensor) -> Losses:
        assert self.spectrum is not None
        magnitude, latents, quantized = self.model.spectrum(wav, *self._quantization(step, wav))
        with torch.autocast(wav.device.type, enabled=False):
            terms = self.spectrum.to(wav.device)(magnitude, latents, wav) | {"quantizer": quantized.loss}
        return Losses({"model": torch.stack(list(terms.values())).sum()}, self._metrics(terms, quantized))

    def _quantization(self, step: int, wav: Tensor) -> tuple[bool, int]:
        """Whether a training pass is quantized, and how many of its rows are not."""
        return step >= self.config.quantize_from_step, round(self.config.unquantized_share * len(wav))

    def _metrics(self, terms: dict[str, Tensor], quantized: Quantized) -> dict[str, Tensor]:
        used = torch.tensor(self._usage(quantized.codes).used, device=quantized.codes.device)
        return {name: value.detach() for name, value in terms.items()} | {"used": used}

    def _usage(self, codes: Tensor) -> CodeUsage:
        """Of codes [B, K, T]."""
        return CodeUsage.of(codes.transpose(0, 1).flatten(1), self.config.model.codebook_size)

    def _adversarial_terms(
        self, gan: AdversarialConfig, wav: Tensor, estimate: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminators' loss, whose gradient ends at them, and the model's, whose gradient passes them by."""
        discriminators = self.others["discriminators"]
        real = discriminators(wav)
        loss = discriminator_loss(real, discriminators(estimate.detach()))
        discriminators.requires_grad_(False)
        fake = discriminators(estimate)
        discriminators.requires_grad_(True)
        with torch.autocast(wav.device.type, enabled=False):
            return loss, {
                "adversarial": gan.adversarial * generator_loss(fake),
                "features": gan.feature_matching * feature_matching_loss(real, fake),
            }

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Mean distances, usage of the codebooks, perplexity (mean over books), and how often a code repeats.

        Distances are log10-mel and spectral convergence of the waveform, or the error of the magnitudes.
        """
        wav = self.held_out.batch(seed=1, index=0, size=self.config.held_out_crops, augment=False).to(_device(model))
        totals: dict[str, list[Tensor]] = {}
        codes = []
        for row in torch.split(wav, 4):
            if self.spectrum is not None:
                assert isinstance(model, Tokenizer | Codec)
                magnitude, latents, quantized = model.spectrum(row)
                terms = self.spectrum.to(row.device)(magnitude, latents, row)
            else:
                estimate, quantized = model(row)
                terms = self._distances(estimate, row)
                if self.made is not None:
                    assert isinstance(model, Codec)
                    through = self._distances(model.decode(self.made(row)), row)
                    terms |= {f"made_{name}": value for name, value in through.items()}
            for name, value in terms.items():
                totals.setdefault(name, []).append(value)
            codes.append(quantized.codes)
        metrics = {name: float(torch.stack(values).mean()) for name, values in totals.items()}
        every = torch.cat(codes)  # [B, K, T]
        usage = self._usage(every)
        repeats = float((every[..., 1:] == every[..., :-1]).float().mean())
        codebooks = {"usage": usage.used, **usage.by_book("usage"), "perplexity": usage.perplexity}
        return metrics | codebooks | {"repeats": repeats}

    def _distances(self, estimate: Tensor, wav: Tensor) -> dict[str, Tensor]:
        """Terms of the reconstruction loss, without their weights."""
        raw = self.reconstruction.to(wav.device)(estimate[..., : wav.shape[-1]], wav)
        return {name: value / getattr(self.config.loss, name) for name, value in raw.items()}

    def sample(self, model: nn.Module, directory: Path) -> None:
        """Original and reconstruction of four held-out crops."""
        wav = self.held_out.batch(seed=2, index=0, size=4, augment=False)
        estimate = model(wav.to(_device(model)))[0].cpu()
        for index, (original, made) in enumerate(zip(wav, estimate, strict=True)):
            write_sample(directory / f"{index}", original[0], made[0], self.config.model.sample_rate)

    def export(self, model: nn.Module, directory: Path) -> None:
        """Native model directory with this one model."""
        export_model(self.config.stage, model, self.config.model, directory)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _spectrum_loss(config: AudioStageConfig) -> SpectrumLoss | None:
    if config.spectrum is None:
        return None
    model = config.model
    if not isinstance(model.decoder, SpectralDecoderConfig):
        raise ConfigError("spectrum: only a spectral decoder can train on magnitudes; leave it out")
    return SpectrumLoss(config.spectrum, model.decoder.n_fft, model.hop_length, model.sample_rate)


def _start_from(model: Tokenizer | Codec, directory: Path, stage: Literal["tokenizer", "codec"]) -> None:
    weights = load_weights(directory, stage)
    own = model.state_dict()
    fitting = {name: value for name, value in weights.items() if name in own and value.shape == own[name].shape}
    books = {name: part for name, part in model.named_modules() if isinstance(part, Codebook) and part.config.ema}
    released = {
        name: part for name, part in books.items() if f"{name}.embed" in fitting and f"{name}.inited" not in weights
    }
    moving = {f"{name}.{part}" for name in released for part in MOVING}
    left = sorted(own.keys() - fitting.keys() - moving)
    unknown = sorted(name for name in weights.keys() - own.keys() if name.startswith("encoder."))
    if wrong := [name for name in left if not name.startswith("decoder.")] + unknown:
        raise CheckpointError(
            f"{directory}: {wrong[0]} of its {stage} does not fit this config; only the decoder may differ"
        )
    logger.info("from %s; afresh: %s", directory, ", ".join(left) or "nothing")
    model.load_state_dict(own | fitting)
    for codebook in released.values():
        codebook.go_on()
