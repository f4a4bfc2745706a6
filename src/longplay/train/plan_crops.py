"""What training a tokenizer, codec or flow costs; flops and memory counted by torch on one row, the rest arithmetic.

The row is computed on the CPU in float32, forward and backward, with the losses and discriminators of the config.
Weights, gradients and AdamW as in `train/plan.py`, of the weights that learn. What torch does not count: FFTs,
pointwise operations, the optimizer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from longplay.errors import ConfigError
from longplay.models.codec import Codec
from longplay.models.discriminators import Discriminators
from longplay.models.flow import Flow
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.train.audio_stage import AudioStageConfig, spectrum_loss
from longplay.train.flow_stage import FlowStageConfig
from longplay.train.losses import ReconstructionLoss, discriminator_loss, feature_matching_loss, generator_loss
from longplay.train.plan import BYTES_OF_AVERAGE, BYTES_OF_STATE, Cluster


@dataclass(frozen=True)
class CropsPlan:
    """Costs in bytes and flops.

    Attributes:
        parameters: of the model.
        learning: those of them that learn.
        discriminators: parameters of these.
        rows_per_process: of one part of a batch.
        row_flops: of one row, forward and backward.
        row_activations: bytes that one row keeps for its backward pass.
        flops: of the run.
        audio_hours: heard in the run, each hour as often as it comes.
    """

    stage: str
    parameters: int
    learning: int
    discriminators: int
    crop_seconds: float
    rows_per_process: int
    row_flops: float
    row_activations: float
    flops: float
    audio_hours: float
    capacity: float

    @property
    def state(self) -> float:
        """Bytes of weights, gradients and AdamW."""
        return BYTES_OF_STATE * (self.learning + self.discriminators) + 4 * (self.parameters - self.learning)

    @property
    def average(self) -> float:
        """Bytes of the averaged weights."""
        return BYTES_OF_AVERAGE * self.learning

    @property
    def activations(self) -> float:
        """Bytes of a part of a batch."""
        return self.rows_per_process * self.row_activations

    @property
    def memory(self) -> float:
        """Bytes of a process that keeps most."""
        return self.state + self.average + self.activations

    @property
    def fits(self) -> bool:
        """Whether nine tenths of the GPU's memory hold it."""
        return self.memory <= 0.9 * self.capacity


def plan_crops(
    config: AudioStageConfig | FlowStageConfig, cluster: Cluster, *, batch_size: int, accumulate: int
) -> CropsPlan:
    """What training a tokenizer, codec or flow costs.

    Args:
        config: of the stage.
        cluster: what it runs on.
        batch_size, accumulate: such as `cluster` can share.

    Raises:
        ConfigError: the GPU is unknown, or latents are made or taught by another model, which is not counted.
    """
    model, others, loss = _flow(config) if isinstance(config, FlowStageConfig) else _autoencoder(config)
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            cost = loss()
        cost.backward()
    steps, row_flops = config.loop.steps, counter.get_total_flops()
    return CropsPlan(
        stage=config.stage,
        parameters=sum(p.numel() for p in model.parameters()),
        learning=sum(p.numel() for p in model.parameters() if p.requires_grad),
        discriminators=sum(p.numel() for p in others.parameters()),
        crop_seconds=config.crop_seconds,
        rows_per_process=batch_size // (cluster.gpus * accumulate),
        row_flops=row_flops,
        row_activations=sum(kept.values()),
        flops=steps * batch_size * row_flops,
        audio_hours=steps * batch_size * config.crop_seconds / 3600,
        capacity=cluster.capacity,
    )


def _autoencoder(config: AudioStageConfig) -> tuple[nn.Module, nn.Module, Callable[[], Tensor]]:
    """Model, discriminators, and the losses of a row of noise."""
    if config.made_by is not None:
        raise ConfigError("made_by: what another model makes is not counted; plan without: --set made_by=null")
    own = config.model
    model = Tokenizer(own) if isinstance(own, TokenizerConfig) else Codec(own)
    model.eval()  # a codebook in training would begin to follow
    if config.freeze_encoder:
        model.requires_grad_(False)
        model.decoder.requires_grad_(True)
    spectrum, reconstruction = spectrum_loss(config), ReconstructionLoss(config.loss, own.sample_rate)
    discriminators = Discriminators(config.adversarial.discriminators) if config.adversarial else None
    wav = 0.1 * torch.randn(1, 1, round(own.sample_rate * config.crop_seconds))

    def loss() -> Tensor:
        if spectrum is not None:
            magnitude, latents, quantized = model.spectrum(wav)
            return torch.stack([quantized.loss, *spectrum(magnitude, latents, wav).values()]).sum()
        estimate, quantized = model(wav)
        estimate = estimate[..., : wav.shape[-1]]
        terms = [quantized.loss, *reconstruction(estimate, wav).values()]
        if discriminators is not None:
            real = discriminators(wav)
            terms.append(discriminator_loss(real, discriminators(estimate.detach())))
            discriminators.requires_grad_(False)
            fake = discriminators(estimate)
            discriminators.requires_grad_(True)
            terms += [generator_loss(fake), feature_matching_loss(real, fake)]
        return torch.stack(terms).sum()

    return model, discriminators or nn.Module(), loss


def _flow(config: FlowStageConfig) -> tuple[nn.Module, nn.Module, Callable[[], Tensor]]:
    if config.reflow is not None:
        raise ConfigError("reflow: what its teacher computes is not counted; plan nano-flow, or --set reflow=null")
    model = Flow(config.flow)
    codes = torch.zeros(1, round(config.crop_seconds * config.flow.code_rate), dtype=torch.long)
    latents = torch.randn(1, config.flow.latent_dim, codes.shape[1] * config.flow.ratio)
    return model, nn.Module(), lambda: model.loss(codes, latents)


def describe_crops(plan: CropsPlan, cluster: Cluster) -> str:
    """The plan as lines of text, with its arithmetic."""
    learning = "" if plan.learning == plan.parameters else f", {plan.learning / 1e6:,.2f} M of them learn"
    against = f"; discriminators: {plan.discriminators / 1e6:,.2f} M" if plan.discriminators else ""
    lines = [
        f"{plan.parameters / 1e6:,.2f} M parameters{learning}{against}",
        f"rows of {plan.crop_seconds:g} s, {plan.rows_per_process} at a time on each of {cluster.gpus} {cluster.gpu}; "
        f"a row: {plan.row_flops:.3g} flop, counted by torch",
        "",
        f"memory of the first process, GB (of {plan.capacity / 1e9:.0f}):",
        f"  {plan.state / 1e9:7.3f}  weights, gradients, AdamW: 16 B x parameters that learn, 4 B x those that rest",
        f"  {plan.average / 1e9:7.3f}  averaged weights: 4 B x parameters that learn",
        f"  {plan.activations / 1e9:7.3f}  activations: {plan.rows_per_process} x {plan.row_activations / 1e6:,.0f} MB, counted, in float32",
        f"  {plan.memory / 1e9:7.3f}  together: " + ("fits" if plan.fits else "does NOT fit; raise loop.accumulate"),
        "",
        cluster.compute(plan.flops),
        "         layers as small as nano's reach a small part of --utilisation: look at steps_per_second of the first minutes",
        f"data: {plan.audio_hours:,.0f} h of audio heard, each as often as it comes",
    ]
    return "\n".join(lines)
