"""What training an lm costs: memory of each process, compute, time, disk; arithmetic, not measurement.

Compute of a decoder: 6 flops per weight and position (2 forward, 4 backward; arXiv 2203.15556), 8 with recomputed
activations, and 12 * layers * dim * positions / 2 per position for causal attention, forward and backward. Memory of
weights: float32 weights, gradients and the two AdamW moments, 16 bytes each (arXiv 1910.02054), plus the average. FSDP
spreads them over the processes, but for gradients of a batch in several parts: those each process sums up whole.
"""

from dataclasses import dataclass

import torch

from longplay.errors import ConfigError
from longplay.models.lm import LM
from longplay.models.lm_config import LMConfig
from longplay.report import number
from longplay.train.lm_stage import LMStageConfig

# dense bf16 flop/s and bytes of memory, from the makers' data sheets
GPUS: dict[str, tuple[float, float]] = {
    "a100": (312e12, 80e9),
    "h100": (989e12, 80e9),
    "h200": (989e12, 141e9),
    "l40s": (362e12, 48e9),
}
BYTES_OF_STATE = 16
BYTES_OF_AVERAGE = 4
_BYTES_OF_GRADIENT = 4
# bytes per position and layer in bf16, as multiples of dim and of intermediate_dim: inputs of norms and projections,
# queries, keys, values, attention output; gate, up and their product
_KEPT_DIMS, _KEPT_INTERMEDIATE = 8, 3
_BYTES_OF_ACTIVATION = 2


@dataclass(frozen=True)
class Cluster:
    """What the training runs on. `utilisation` is the share of the peak that is reached."""

    gpu: str = "h100"
    gpus: int = 8
    utilisation: float = 0.4

    @property
    def peak(self) -> float:
        """Flop/s of one GPU.

        Raises:
            ConfigError: it is unknown; so with `capacity`.
        """
        return self._figures()[0]

    @property
    def capacity(self) -> float:
        """Bytes of memory of one GPU."""
        return self._figures()[1]

    def _figures(self) -> tuple[float, float]:
        if self.gpu not in GPUS:
            raise ConfigError(f"gpu = {self.gpu!r}: no figures for it; use one of {', '.join(GPUS)}")
        return GPUS[self.gpu]

    def compute(self, flops: float) -> str:
        """How long `flops` take, as a line with its arithmetic."""
        hours = self.seconds(flops) / 3600
        took = f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.2g} min"
        return (
            f"compute: {flops:.3g} flop / ({self.gpus} x {self.peak / 1e12:.0f} Tflop/s x {self.utilisation:g}) "
            f"= {took}, {number(hours * self.gpus)} GPU hours"
        )

    def seconds(self, flops: float) -> float:
        """How long `flops` take."""
        return flops / (self.gpus * self.peak * self.utilisation)


def divide(batch_size: int, accumulate: int, gpus: int) -> tuple[int, int]:
    """Batch size and parts that `gpus` can share: fewer parts where that is enough, and only then more rows."""
    batch = -(-batch_size // gpus) * gpus
    rows = batch // gpus
    return batch, max(parts for parts in range(1, accumulate + 1) if rows % parts == 0)


def describe_division(batch_size: int, accumulate: int, gpus: int) -> list[str]:
    """What to start a run on so many GPUs with, as lines; none where its config will do."""
    batch, parts = divide(batch_size, accumulate, gpus)
    if (batch, parts) == (batch_size, accumulate):
        return []
    parts_set = [] if parts == accumulate else [f"--set loop.accumulate={parts}"]
    given = (
        f"batch_size {batch_size} in {accumulate} parts does not go into {gpus} GPUs; planned, and to be started, with"
    )
    if batch == batch_size:
        return [f"{given} {' '.join(parts_set)}: the batch is the same", ""]
    return [
        f"{given} {' '.join([f'--set batch_size={batch}', *parts_set])}:",
        f"an update is {batch / batch_size:.3g} times as large, and {batch_size / batch:.3g} of loop.steps would hear as much",
        "",
    ]


@dataclass(frozen=True)
class Plan:
    """Per process, in bytes: `state`, `gradients`, `average`, `activations`, `logits`; for the whole run: the rest.

    Attributes:
        parameters: of the model.
        matmul_parameters: those that every position multiplies with, i.e. without embeddings and output head.
        rows_per_process: of one part of a batch.
        positions: in one row: prefix and codes; packed, of as many windows as fit.
        gradients: whole, beside their share in `state`, where a sharded run sums up the parts of a batch.
        flops: of the run.
        seconds: of the run.
        audio_hours: heard in the run, each hour as often as it comes.
        checkpoint: bytes on disk.
        shards: bytes on disk of an hour of audio as token shards, semantic codes alone.
    """

    parameters: int
    matmul_parameters: int
    positions: int
    rows_per_process: int
    sharded: bool
    state: float
    gradients: float
    average: float
    activations: float
    logits: float
    capacity: float
    flops: float
    seconds: float
    audio_hours: float
    checkpoint: float
    shards: float

    @property
    def memory(self) -> float:
        """Bytes of a process that keeps most."""
        return self.state + self.gradients + self.average + self.activations + self.logits

    @property
    def fits(self) -> bool:
        """Whether nine tenths of the GPU's memory hold it; the rest is for buffers and fragments."""
        return self.memory <= 0.9 * self.capacity


def plan_lm(
    config: LMConfig,
    cluster: Cluster,
    *,
    batch_size: int,
    steps: int,
    accumulate: int,
    shard: bool,
    checkpoint_activations: bool,
    row_positions: int | None = None,
    prefix: int = 64,
) -> Plan:
    """What training an lm costs.

    Args:
        config: of the model, with `context_frames` set.
        cluster: what it runs on.
        batch_size, steps, accumulate, shard, checkpoint_activations, row_positions: as in the stage's config.
        prefix: positions of text and structure before a window.

    Raises:
        ConfigError: the GPU is unknown, there is no window, or the batch cannot be divided.
    """
    if config.context_frames is None:
        raise ConfigError("lm.context_frames is not set; give the window that the model trains on")
    if batch_size % (cluster.gpus * accumulate):
        raise ConfigError(f"batch_size = {batch_size}: is no multiple of {cluster.gpus} GPUs x accumulate {accumulate}")
    capacity = cluster.capacity
    with torch.device("meta"):
        model = LM(config)
    parameters = sum(p.numel() for p in model.parameters())
    matmul = sum(p.numel() for p in model.layers.parameters() if p.ndim == 2)
    head = model.audio_head.weight.numel()
    window = prefix + config.context_frames
    positions = row_positions or window
    rows = batch_size // (cluster.gpus * accumulate)
    spread = cluster.gpus if shard else 1
    per_layer = _KEPT_DIMS * config.dim + _KEPT_INTERMEDIATE * config.intermediate_dim
    # recomputing keeps the input of each layer, and one layer in full
    kept = config.num_layers * config.dim + per_layer if checkpoint_activations else config.num_layers * per_layer
    passes = 8 if checkpoint_activations else 6
    attention = passes * config.num_layers * config.dim * window  # 2 products x 2 flops, half of them causal
    flops = steps * batch_size * positions * (passes * matmul + 6 * head + attention)
    return Plan(
        parameters=parameters,
        matmul_parameters=matmul,
        positions=positions,
        rows_per_process=rows,
        sharded=shard,
        state=BYTES_OF_STATE * parameters / spread,
        gradients=_BYTES_OF_GRADIENT * parameters if shard and accumulate > 1 else 0,
        # whole on the first process, besides its shard
        average=BYTES_OF_AVERAGE * parameters * (1 + 1 / spread if shard else 1),
        activations=_BYTES_OF_ACTIVATION * rows * positions * kept,
        logits=2 * 4 * rows * positions * (config.codebook_size + 1),
        capacity=capacity,
        flops=flops,
        seconds=cluster.seconds(flops),
        audio_hours=steps * batch_size * positions / window * config.context_frames / config.code_rate / 3600,
        checkpoint=(4 + 8 + 4) * parameters,
        shards=2 * 3600 * config.code_rate,
    )


def plan_lm_stage(config: LMStageConfig, cluster: Cluster, *, batch_size: int, accumulate: int) -> Plan:
    """What a run of stage `lm` costs.

    Args:
        config: of the stage.
        cluster: what it runs on.
        batch_size, accumulate: such as `cluster` can share.

    Raises:
        ConfigError: see `plan_lm`; or takes are compared, or the model mishears itself, which is not counted.
    """
    if config.preference is not None:
        raise ConfigError(
            "preference: what its takes and the model they are compared with cost is not counted; plan without: --set preference=null"
        )
    if config.misheard and config.misheard_for == "model":
        raise ConfigError(
            "misheard_for = model: what the model draws to mishear is not counted; plan without: --set misheard_for=others"
        )
    loop = config.loop
    return plan_lm(
        config.lm,
        cluster,
        batch_size=batch_size,
        steps=loop.steps,
        accumulate=accumulate,
        shard=loop.shard,
        checkpoint_activations=loop.checkpoint_activations,
        row_positions=config.row_positions,
    )


def describe(plan: Plan, cluster: Cluster) -> str:
    """The plan as lines of text, with its arithmetic."""
    spread = f"/ {cluster.gpus} processes" if plan.sharded else "(on every process)"
    summed = [f"  {plan.gradients / 1e9:7.1f}  gradients, whole until the last part of a batch: 4 B x parameters"]
    lines = [
        f"{plan.parameters / 1e6:,.0f} M parameters, {plan.matmul_parameters / 1e6:,.0f} M of them in the layers' matrices",
        f"rows of {plan.positions:,} positions, {plan.rows_per_process} at a time on each of {cluster.gpus} {cluster.gpu}",
        "",
        f"memory of the first process, GB (of {plan.capacity / 1e9:.0f}):",
        f"  {plan.state / 1e9:7.1f}  weights, gradients, AdamW: 16 B x parameters {spread}",
        *(summed if plan.gradients else []),
        f"  {plan.average / 1e9:7.1f}  averaged weights: 4 B x parameters"
        + (", whole and as a shard" if plan.sharded else ""),
        f"  {plan.activations / 1e9:7.1f}  activations, bf16",
        f"  {plan.logits / 1e9:7.1f}  logits and their gradient, float32",
        f"  {plan.memory / 1e9:7.1f}  together: "
        + ("fits" if plan.fits else "does NOT fit; raise loop.accumulate or set loop.shard=true"),
        "",
        cluster.compute(plan.flops),
        f"data: {plan.audio_hours:,.0f} h of audio heard, each as often as it comes; "
        f"shards of {plan.shards / 1e6:.2f} MB an hour",
        f"disk: {plan.checkpoint / 1e9:.1f} GB a checkpoint; two while one is written",
    ]
    return "\n".join(lines)
