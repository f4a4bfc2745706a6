"""Stages `tokenizer` and `codec`: autoencoders trained by reconstruction, and later adversarially.

Both models share one interface here: `forward(wav)` gives the reconstruction and what the quantizer did.
"""

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from longplay.checkpoint.hub import locate
from longplay.config import Config
from longplay.data.crops import Crops
from longplay.errors import ConfigError
from longplay.models.codec import Codec, CodecConfig
from longplay.models.discriminators import DiscriminatorConfig, Discriminators
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.nn.quantizers import CodeUsage, Quantized
from longplay.nn.spectral import ComponentsEncoderConfig, SpectralDecoderConfig
from longplay.train.balance import BalanceConfig, Balancer
from longplay.train.code_report import PICTURE, code_figures, draw_codes
from longplay.train.components import start_from_components
from longplay.train.export import export_model
from longplay.train.init import start_autoencoder
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
        held_out_crops, held_out_seconds: what an evaluation measures with.
        counted_crops: of the same length, whose codes an evaluation counts: enough for each code to come several times.
        init: a model whose own one this run starts from, by directory or name; layers of the decoder that it lacks, or has in another
            size, start afresh. `quantize_from_step` is then usually 0.
        unquantized_share: of the rows of a batch, whose latents pass the codebooks by: a decoder that follows a flow meets such latents.
        made_by: a model whose tokenizer and flow make the latents of those rows, as they come in generation; codec only.
        spectrum: train encoder, codebooks and the magnitudes of a spectral decoder, without a waveform.
        freeze_encoder: train the decoder alone. Codes and latents stay what they are, so an lm and a flow that learnt
            from them remain good: what follows a `spectrum` run, and how a GAN comes last.
        balance: fixed shares of the terms of the loss on waveforms in its gradient; without, their weights are as they are.
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
    counted_crops: int = Field(default=64, gt=0)
    init: Path | None = None
    made_by: Path | None = None
    spectrum: SpectrumConfig | None = None
    freeze_encoder: bool = False
    loss: ReconstructionConfig = ReconstructionConfig()
    adversarial: AdversarialConfig | None = None
    balance: BalanceConfig | None = None
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

    @model_validator(mode="after")
    def _magnitudes_are_no_waveform(self) -> "AudioStageConfig":
        for name in ("balance", "adversarial"):
            if self.spectrum is not None and getattr(self, name) is not None:
                raise ValueError(f"{name} is of the terms of a loss on waveforms; leave out {name}, or spectrum")
        return self

    @model_validator(mode="after")
    def _what_is_kept_was_learnt(self) -> "AudioStageConfig":
        if self.freeze_encoder and self.init is None:
            raise ValueError(
                "freeze_encoder = true: of a model that has learnt; set init to it, or freeze_encoder to false"
            )
        return self

    @model_validator(mode="after")
    def _what_starts_later_starts(self) -> "AudioStageConfig":
        starts = {"quantize_from_step": self.quantize_from_step}
        if self.adversarial is not None:
            starts["adversarial.start_step"] = self.adversarial.start_step
        for name, step in starts.items():
            if step >= self.loop.steps:
                raise ValueError(
                    f"{name} = {step}: the run ends after loop.steps = {self.loop.steps}; set {name} to less, e.g. 0"
                )
        return self

    @model_validator(mode="after")
    def _every_term_has_its_share(self) -> "AudioStageConfig":
        if self.balance is None:
            return self
        weights = {name: getattr(self.loss, name) for name in ("mel", "magnitude", "complex")}
        if self.adversarial:
            weights |= {"adversarial": self.adversarial.adversarial, "features": self.adversarial.feature_matching}
        terms = [name for name, weight in weights.items() if weight]
        if self.balance.shares.keys() != set(terms):
            raise ValueError(
                f"balance.shares names {', '.join(self.balance.shares)}; the loss has {', '.join(terms)}: give a share to each of these"
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
    """Trains one autoencoder on crops of audio files.

    Args:
        config: of the run.
        train_files, held_out_files: paths and seconds, to learn from and to measure with.
        begins: compute from the music what the model starts as; else a checkpoint holds it.
    """

    def __init__(
        self,
        config: AudioStageConfig,
        train_files: list[tuple[Path, float]],
        held_out_files: list[tuple[Path, float]],
        begins: bool = True,
    ) -> None:
        self.name = config.stage
        self.config = config
        model = config.model
        self.model: Tokenizer | Codec = Tokenizer(model) if isinstance(model, TokenizerConfig) else Codec(model)
        if config.init is not None:
            start_autoencoder(self.model, config.stage, locate(str(config.init)))
        if config.freeze_encoder:
            self.model.requires_grad_(False)
            self.model.decoder.requires_grad_(True)
        self.crops = Crops(train_files, model.sample_rate, config.crop_seconds)
        self.held_out = Crops(held_out_files, model.sample_rate, config.held_out_seconds, "valid")
        self.reconstruction = ReconstructionLoss(config.loss, model.sample_rate)
        self.spectrum = spectrum_loss(config)
        if begins and config.init is None and self.spectrum is not None:
            start_from_components(self.model, self.crops.batch, self.spectrum.weight.flatten())
        self.made: MadeLatents | None = None
        if config.made_by is not None and isinstance(model, CodecConfig):
            self.made = MadeLatents(locate(str(config.made_by)), model)
        self.others = nn.ModuleDict()
        self.learning_rates: dict[str, float] = {}
        if config.adversarial:
            self.others["discriminators"] = Discriminators(config.adversarial.discriminators)
            self.learning_rates["discriminators"] = config.adversarial.learning_rate
        if config.balance:
            self.others["balancer"] = Balancer(config.balance)
        self._usage: CodeUsage | None = None
        self.blocks = [self.model.decoder] if config.freeze_encoder else [self.model.encoder, self.model.decoder]
        self.partial_gradients = True  # the codebooks wait for quantize_from_step, the discriminators for start_step
        self.keeps_resting = config.init is None
        self.batch_size = config.batch_size

    def batch(self, step: int, rows: slice) -> Batch:
        """`wav` [B, 1, S], and `unquantized` [U]: which of these rows are of those whose latents pass the codebooks by."""
        wav = self.crops.batch(self.config.loop.seed, step, self.batch_size, rows=rows)
        first = rows.indices(self.batch_size)[0]
        count = round(self.config.unquantized_share * self.batch_size) - first
        return {"wav": wav, "unquantized": torch.arange(min(max(0, count), len(wav)))}

    def losses(self, step: int, batch: Batch) -> Losses:
        """Reconstruction, quantizer and, once they have started, adversarial terms."""
        wav = batch["wav"]
        if self.config.freeze_encoder:
            self.model.eval()  # a codebook in training follows its latents
        if self.spectrum is not None:
            return self._spectrum_losses(step, batch)
        unquantized = len(batch["unquantized"])  # the first ones
        made = {} if self.made is None else {"made": self.made(wav[:unquantized])}
        estimate, quantized = self.model(wav, self._quantizes(step), unquantized, **made)
        estimate = estimate[..., : wav.shape[-1]]
        with torch.autocast(wav.device.type, enabled=False):
            terms = self.reconstruction.to(wav.device)(estimate, wav) | {"quantizer": quantized.loss}
        learning: dict[str, Tensor] = {}
        gan = self.config.adversarial
        if gan and step >= gan.start_step:
            learning["discriminators"], adversarial = self._adversarial_terms(gan, wav, estimate)
            terms |= adversarial
        metrics = self._metrics(terms, quantized)
        if "balancer" in self.others:
            balanced, norms = self.others["balancer"](step, terms, estimate)
            terms, metrics = {"balanced": balanced, "quantizer": quantized.loss}, metrics | norms
        learning["model"] = torch.stack(list(terms.values())).sum()
        if "discriminators" in learning:
            metrics["discriminator"] = learning["discriminators"].detach()
        return Losses(learning, metrics)

    def _spectrum_losses(self, step: int, batch: Batch) -> Losses:
        assert self.spectrum is not None
        wav = batch["wav"]
        magnitude, latents, quantized = self.model.spectrum(wav, self._quantizes(step), len(batch["unquantized"]))
        with torch.autocast(wav.device.type, enabled=False):
            terms = self.spectrum.to(wav.device)(magnitude, latents, wav) | {"quantizer": quantized.loss}
        return Losses({"model": torch.stack(list(terms.values())).sum()}, self._metrics(terms, quantized))

    def _quantizes(self, step: int) -> bool:
        return step >= self.config.quantize_from_step

    def _metrics(self, terms: dict[str, Tensor], quantized: Quantized) -> dict[str, Tensor]:
        used = torch.tensor(self._count(quantized.codes).used, device=quantized.codes.device)
        return {name: value.detach() for name, value in terms.items()} | {"used": used}

    def _count(self, codes: Tensor) -> CodeUsage:
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
        """Mean distances, use of the codebooks (`train/code_report.py`), and how often a code repeats.

        Distances are log10-mel and spectral convergence of the waveform, or the error of the magnitudes.
        """
        totals: dict[str, list[Tensor]] = {}
        for row in self._held_out(1, self.config.held_out_crops, model):
            if self.spectrum is not None:
                assert isinstance(model, Tokenizer | Codec)
                magnitude, latents, _ = model.spectrum(row)
                terms = self.spectrum.to(row.device)(magnitude, latents, row)
            else:
                terms = self._distances(model(row)[0], row)
                if self.made is not None:
                    assert isinstance(model, Codec)
                    through = self._distances(model.decode(self.made(row)), row)
                    terms |= {f"made_{name}": value for name, value in through.items()}
            for name, value in terms.items():
                totals.setdefault(name, []).append(value)
        metrics = {name: float(torch.stack(values).mean()) for name, values in totals.items()}
        assert isinstance(model, Tokenizer | Codec)
        codes = torch.cat([self._codes(model, row) for row in self._held_out(3, self.config.counted_crops, model)])
        self._usage = self._count(codes)
        repeats = float((codes[..., 1:] == codes[..., :-1]).float().mean())
        return metrics | code_figures(self._usage) | {"repeats": repeats}

    def _held_out(self, seed: int, crops: int, model: nn.Module) -> tuple[Tensor, ...]:
        """Fixed crops, by fours [4, 1, S], where the model is."""
        return self.held_out.batch(seed, 0, crops, augment=False).to(_device(model)).split(4)

    @staticmethod
    def _codes(model: Tokenizer | Codec, wav: Tensor) -> Tensor:
        """[B, K, T], also of a single codebook."""
        codes = model.encode(wav)
        return codes if codes.ndim == 3 else codes.unsqueeze(1)

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

    def report(self, run: Path) -> None:
        """`codes.png`: how often each code came in the last evaluation."""
        if self._usage is not None:
            draw_codes(self._usage, run / PICTURE)

    def export(self, model: nn.Module, directory: Path) -> None:
        """Native model directory with this one model."""
        export_model(self.config.stage, model, self.config.model, directory)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def spectrum_loss(config: AudioStageConfig) -> SpectrumLoss | None:
    """The loss of a run on magnitudes; None for one on waveforms.

    Raises:
        ConfigError: the decoder has no magnitudes.
    """
    if config.spectrum is None:
        return None
    model = config.model
    if not isinstance(model.decoder, SpectralDecoderConfig):
        raise ConfigError("spectrum: only a spectral decoder can train on magnitudes; leave it out")
    return SpectrumLoss(config.spectrum, model.decoder.n_fft, model.hop_length, model.sample_rate)
