"""`lm`: text, times, structure and codes so far -> the next code, by a Qwen2.5 decoder (arXiv 2412.15115).

One row of input vectors, concatenated along time (CHECKPOINTS.md 3.2):

    [sos] [start x S] [end x S] [label x S] [text x L] [task] [audio x T]

with S segments of the piece. The state at `task` predicts the first code, the state at code n the one after it, and
after the last comes eos = `codebook_size`. A model with `LMConfig.control` is told of every code, by an addition to the
vector before it, where in the bar it falls, the tempo and the key (`control.py`), and what the text says; with
`LMConfig.style_dim` also how the music is to sound, in numbers that the words stand for. Published models saw whole pieces; our own are trained on windows of
`context_frames` codes, with times counted from the start of the piece.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from longplay.control import CHORD_WIDTH, CONTROL_WIDTH
from longplay.models.lm_config import LMConfig
from longplay.nn.attention import Attention, Rotary
from longplay.nn.cache import KVCache
from longplay.nn.compiled import CACHE_DTYPE, CompiledStep, CompiledWeights
from longplay.nn.decoder import Decoder, DecoderLayer, Projection, turning_frequencies
from longplay.nn.linear import Dense, Weights, stack_linears
from longplay.nn.packing import Packing
from longplay.nn.quantized import RoundedWeights

IGNORED = -1
_SOS, _TASK = 0, 1
_INIT_STD = 0.02
# Of the mean of the text, so that a step of Adam moves what it adds as far as what bars, tempo and key add.
_TEXT_RMS = 0.1


@dataclass(frozen=True)
class LMBatch:
    """Pieces or windows of pieces to train on; everything right-padded, padding of `ids` and `codes` holds any id.

    Attributes:
        ids, id_lengths: text.
        codes, code_lengths: audio.
        starts, ends: seconds of each segment; a start of -1 marks padding.
        labels: label id of each segment.
        complete: whether eos follows the last code; false for a window that stops before its piece does.
        control: features of each code and the one after the last; zeros where none, None where the model takes none.
        style: how each sounds; not a number where that is not known and its words tell, None where the model takes none.
        heard: what stands in the place of `codes` before those that are predicted; None: they themselves.
    """

    ids: Int[Tensor, "B L"]
    id_lengths: Int[Tensor, " B"]
    codes: Int[Tensor, "B T"]
    code_lengths: Int[Tensor, " B"]
    starts: Float[Tensor, "B S"]
    ends: Float[Tensor, "B S"]
    labels: Int[Tensor, "B S"]
    complete: Bool[Tensor, " B"]
    control: Float[Tensor, "B T+1 C"] | None = None
    style: Float[Tensor, "B Y"] | None = None
    heard: Int[Tensor, "B T"] | None = None

    def to(self, device: torch.device) -> "LMBatch":
        """The same on `device`."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items() if value is not None})


class LMLoss(NamedTuple):
    """Mean over all labelled positions, eos included: cross-entropy in nats, share of correct argmax."""

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, dim: int, intermediate_dim: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, intermediate_dim, bias=False)
        self.up_proj = nn.Linear(dim, intermediate_dim, bias=False)
        self.down_proj = nn.Linear(intermediate_dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Per position."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class WordStyles(nn.Module):
    """How music sounds that a text describes: the sum of what each of its ids, once, says, and of what holds for any text.

    The weights are computed from captions and what was measured of their music (`longplay.train.word_styles`), not trained.
    """

    def __init__(self, vocab_size: int, style_dim: int) -> None:
        super().__init__()
        self.each = nn.Embedding(vocab_size, style_dim).requires_grad_(False)
        self.any = nn.Parameter(torch.zeros(style_dim), requires_grad=False)

    def forward(self, ids: Int[Tensor, " L"]) -> Float[Tensor, " Y"]:
        """Zeros for no text: nothing is known."""
        if not len(ids):
            return torch.zeros_like(self.any)
        return self.each(ids.unique()).sum(dim=0) + self.any


class Layer(nn.Module):
    """Pre-norm attention and MLP, each added to its input."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.dim, config.norm_eps)
        self.self_attn = Attention(config.dim, config.num_heads, config.num_kv_heads, config.head_dim)
        self.post_attention_layernorm = nn.RMSNorm(config.dim, config.norm_eps)
        self.mlp = MLP(config.dim, config.intermediate_dim)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        cosine: Float[Tensor, "#B 1 N H"],
        sine: Float[Tensor, "#B 1 N H"],
        packing: Packing | None = None,
    ) -> Float[Tensor, "B N D"]:
        """The residual stream after this layer."""
        x = x + self.self_attn(self.input_layernorm(x), cosine, sine, packing)
        return x + self.mlp(self.post_attention_layernorm(x))


class LM(nn.Module):
    """The layers and their embeddings: `structure`, `assemble`, `forward`, `audio_head`, `loss`; `decoder` for inference."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.config = config
        self.text_embedding = nn.Embedding(config.text_vocab_size, config.dim)
        self.audio_embedding = nn.Embedding(config.codebook_size, config.dim)
        self.structure_embedding = nn.Embedding(config.num_labels, config.dim)
        self.task_embedding = nn.Embedding(2, config.dim)
        width = CONTROL_WIDTH if config.chords else CONTROL_WIDTH - CHORD_WIDTH
        self.control_projection = nn.Linear(width, config.dim, bias=False) if config.control else None
        self.text_projection = nn.Linear(config.dim, config.dim, bias=False) if config.control else None
        self.style_projection = nn.Linear(config.style_dim, config.dim, bias=False) if config.style_dim else None
        self.word_styles = WordStyles(config.text_vocab_size, config.style_dim) if config.style_dim else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.audio_head = nn.Linear(config.dim, config.codebook_size + 1)
        self.rotary = Rotary(config.head_dim, config.rope_theta)
        self.inference: Decoder | None = None
        self._initialize()

    def _initialize(self) -> None:
        residual_std = _INIT_STD / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                nn.init.normal_(
                    parameter, std=residual_std if name.endswith(("o_proj.weight", "down_proj.weight")) else _INIT_STD
                )
        # The head starts as the embedding's transpose: the newest code is the first guess for the next one, which
        # codes of sustained sound make a good guess (docs/experiments.md, 2026-11-22).
        with torch.no_grad():
            for projection in (self.control_projection, self.text_projection, self.style_projection):
                if projection is not None:
                    projection.weight.zero_()
            if self.word_styles is not None:
                self.word_styles.each.weight.zero_()
            self.audio_head.weight[: self.config.codebook_size].copy_(self.audio_embedding.weight)

    def linears(self) -> Iterator[tuple[str, Weights]]:
        """Every projection of a step by name, as `decoder` takes it: `0.qkv 0.o 0.gate_up 0.down 1.qkv ... head`."""
        for name, layers in self.linear_layers().items():
            yield name, stack_linears(list(layers.values()))

    def linear_layers(self) -> dict[str, dict[str, nn.Linear]]:
        """The layers that each of `linears` stacks, with their names in the state dict."""
        found: dict[str, dict[str, nn.Linear]] = {}
        for index, layer in enumerate(self._layers()):
            attention, mlp, prefix = layer.self_attn, layer.mlp, f"layers.{index}"
            found[f"{index}.qkv"] = {
                f"{prefix}.self_attn.q_proj": attention.q_proj,
                f"{prefix}.self_attn.k_proj": attention.k_proj,
                f"{prefix}.self_attn.v_proj": attention.v_proj,
            }
            found[f"{index}.o"] = {f"{prefix}.self_attn.o_proj": attention.o_proj}
            found[f"{index}.gate_up"] = {
                f"{prefix}.mlp.gate_proj": mlp.gate_proj,
                f"{prefix}.mlp.up_proj": mlp.up_proj,
            }
            found[f"{index}.down"] = {f"{prefix}.mlp.down_proj": mlp.down_proj}
        return found | {"head": {"audio_head": self.audio_head}}

    def replaced(self) -> list[str]:
        """Names of the weights that forms in few bits replace (`linear_layers`), and of the one of which a text reads some rows."""
        layers = [name for layers in self.linear_layers().values() for name in layers]
        return [*(f"{name}.weight" for name in layers), "text_embedding.weight"]

    def decoder(
        self, projections: Mapping[str, Projection] | None = None, compiled: CompiledStep | None = None
    ) -> Decoder:
        """What computes `forward` step by step, with a cache.

        Args:
            projections: how to compute each of `linears`; None: as they are. They are copies: later training does not
                reach them.
            compiled: what takes single positions, see `compiled_decoder`.
        """
        if projections is None:
            projections = {name: Dense(weights) for name, weights in self.linears()}
        layers = [
            DecoderLayer(
                attention_norm=layer.input_layernorm.weight.detach(),
                mlp_norm=layer.post_attention_layernorm.weight.detach(),
                **{part: projections[f"{index}.{part}"] for part in ("qkv", "o", "gate_up", "down")},
            )
            for index, layer in enumerate(self._layers())
        ]
        config = self.config
        norm, head = self.norm.weight.detach(), projections["head"]
        return Decoder(
            layers,
            norm,
            head,
            turning_frequencies(self.rotary, config.num_heads, config.num_kv_heads),
            config.num_kv_heads,
            config.head_dim,
            config.norm_eps,
            compiled=compiled,
        )

    def compiled_decoder(self, weights: Mapping[str, RoundedWeights | Weights]) -> Decoder:
        """`decoder` with each of `linears` in the given form, and steps compiled where this machine can (`nn/compiled.py`)."""
        gains = [gain for layer in self._layers() for gain in (layer.input_layernorm, layer.post_attention_layernorm)]
        packed = CompiledWeights(weights)
        step = CompiledStep(
            packed,
            torch.stack([gain.weight.detach() for gain in [*gains, self.norm]]),
            self.rotary.frequencies,
            self.config.num_kv_heads,
            self.config.head_dim,
            self.config.norm_eps,
        )
        return self.decoder(packed.projections, step)

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def prepare(self, decoder: Decoder | None = None) -> None:
        """Settle for inference, once, after loading: sets `inference` to `decoder`, by default `decoder()`.

        The layers give up their memory and stay as shapes, so such a model is not saved or trained further.
        """
        if self.inference is None:
            self.inference = self.decoder() if decoder is None else decoder
            self.layers.to("meta")

    def cache(self, batch_size: int, capacity: int, dtype: torch.dtype | None = None) -> KVCache:
        """An empty cache for `batch_size` rows of at most `capacity` positions.

        `dtype` default: that of the model, or `nn.compiled.CACHE_DTYPE` where steps are compiled.
        """
        config, like = self.config, self.audio_head.bias
        if dtype is None and self.inference is not None and self.inference.compiled is not None:
            dtype = CACHE_DTYPE
        return KVCache.empty(
            config.num_layers,
            batch_size,
            config.num_kv_heads,
            capacity,
            config.head_dim,
            dtype or like.dtype,
            like.device,
        )

    def time_embedding(self, seconds: Float[Tensor, " S"]) -> Float[Tensor, "S D"]:
        """Sinusoids of unscaled seconds: sines first, then cosines."""
        half = self.config.dim // 2
        steps = torch.arange(half, dtype=torch.float32, device=seconds.device)
        angles = seconds[:, None] * torch.exp(steps * -(math.log(10000.0) / (half - 1)))
        embedding = torch.cat([angles.sin(), angles.cos()], dim=-1)
        if self.config.float16_time:
            embedding = embedding.half()
        return embedding.to(self.audio_head.bias)

    def structure(
        self, starts: Float[Tensor, " S"], ends: Float[Tensor, " S"], labels: Int[Tensor, " S"]
    ) -> Float[Tensor, "N D"]:
        """The 3 S vectors of S segments: all starts, all ends, all labels."""
        return torch.cat([self.time_embedding(starts), self.time_embedding(ends), self.structure_embedding(labels)])

    def assemble(
        self,
        structure: Float[Tensor, "S D"],
        ids: Int[Tensor, " L"],
        codes: Int[Tensor, " T"],
        control: Float[Tensor, "T+1 C"] | None = None,
        style: Float[Tensor, " Y"] | None = None,
    ) -> Float[Tensor, "N D"]:
        """One row of input.

        Args:
            structure: of the segments.
            ids: of the text; none is what training calls dropped text.
            codes: so far.
            control: features of `codes` and of the one that follows; None: nothing is known of them.
            style: see `said`.
        """
        sos, task = self.task_embedding.weight[_SOS, None], self.task_embedding.weight[_TASK, None]
        audio = torch.cat([task, self.audio_embedding(codes)]) + self.said(ids, control, style)
        return torch.cat([sos, structure, self._embedded(ids), audio])

    def _embedded(self, ids: Int[Tensor, " L"]) -> Float[Tensor, "L D"]:
        """Of the text, in the dtype of everything else."""
        return self.text_embedding(ids).to(self.audio_head.bias.dtype)

    def said(
        self,
        ids: Int[Tensor, " L"],
        control: Float[Tensor, "N C"] | None,
        style: Float[Tensor, " Y"] | None = None,
    ) -> Float[Tensor, "#N D"]:
        """What is added to the vectors before some codes.

        Args:
            ids: of the text.
            control: features of the codes; None: nothing is known of them.
            style: how they sound; None: as the text says, if there is one.

        Raises:
            ValueError: there are features, and the model takes none.
        """
        added = self.audio_head.bias.new_zeros(1, self.config.dim)
        if control is not None:
            if self.control_projection is None:
                raise ValueError(
                    "this model takes no bars, tempo, key and chords of its codes: LMConfig.control is false"
                )
            added = added + self.control_projection(control[:, : self.control_projection.in_features])
        if self.text_projection is not None:
            total = self._embedded(ids).sum(dim=0, keepdim=True)  # of no text, too: every process needs a gradient
            added = added + self.text_projection(_TEXT_RMS * F.rms_norm(total, total.shape[-1:]))
        if self.style_projection is not None and self.word_styles is not None:
            added = added + self.style_projection(self.word_styles(ids) if style is None else style)
        return added

    def forward(self, inputs: Float[Tensor, "B N D"], packing: Packing | None = None) -> Float[Tensor, "B N D"]:
        """States after the final norm, which `audio_head` turns into logits; those of padding mean nothing.

        Args:
            inputs: whole rows of vectors, right-padded.
            packing: which sequences each row consists of, if it is more than one.
        """
        device = inputs.device
        positions = torch.arange(inputs.shape[1], device=device) if packing is None else packing.positions(device)
        cosine, sine = (angle.to(inputs.dtype) for angle in self.rotary(positions[None]))
        x = inputs
        for layer in self.layers:
            x = layer(x, cosine, sine, packing)
        return self.norm(x)

    def draw_dropped(self, batch_size: int, generator: torch.Generator) -> Bool[Tensor, " B"]:
        """Which rows of a batch train without text; depends on the state of `generator` (on the CPU) alone."""
        return torch.rand(batch_size, generator=generator) < self.config.text_dropout

    def rows(
        self, batch: LMBatch, dropped: Bool[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B N D"], Int[Tensor, "B N"]]:
        """Inputs and targets of a batch, padded with vectors of -1 (as published) and `IGNORED`."""
        inputs, targets = self._each_row(batch, dropped)
        return (
            pad_sequence(inputs, batch_first=True, padding_value=-1.0),
            pad_sequence(targets, batch_first=True, padding_value=IGNORED),
        )

    def _each_row(
        self, batch: LMBatch, dropped: Bool[Tensor, " B"] | None
    ) -> tuple[list[Float[Tensor, "_ D"]], list[Int[Tensor, " _"]]]:
        inputs, targets = [], []
        id_lengths = batch.id_lengths
        if dropped is not None:
            id_lengths = id_lengths.masked_fill(dropped.to(id_lengths.device), 0)
        lengths = zip(id_lengths.tolist(), batch.code_lengths.tolist(), strict=True)
        for row, (id_length, code_length) in enumerate(lengths):
            real = batch.starts[row] >= 0
            structure = self.structure(batch.starts[row][real], batch.ends[row][real], batch.labels[row][real])
            codes = batch.codes[row, :code_length]
            heard = codes if batch.heard is None else batch.heard[row, :code_length]
            told, control, style = dropped is None or not dropped[row], None, None
            if told and batch.control is not None:
                control = batch.control[row, : code_length + 1]
            if told and batch.style is not None and not batch.style[row].isnan().any():
                style = batch.style[row]
            inputs.append(self.assemble(structure, batch.ids[row, :id_length], heard, control, style))
            target = torch.full((len(inputs[-1]),), IGNORED, dtype=torch.long, device=codes.device)
            target[-1 - code_length : -1] = codes
            target[-1] = torch.where(batch.complete[row], self.config.eos, IGNORED)
            targets.append(target)
        return inputs, targets

    def loss(self, batch: LMBatch, dropped: Bool[Tensor, " B"] | None = None, packed: bool = False) -> LMLoss:
        """Next-code cross-entropy of a batch; no label smoothing.

        Args:
            batch: what to learn.
            dropped: rows whose text, control and style are left out (`draw_dropped`); default none.
            packed: compute the rows one after the other in one, without padding; the same but for rounding.
        """
        packing = None
        if packed:
            each, target_of_each = self._each_row(batch, dropped)
            packing = Packing(tuple(map(len, each)))
            inputs, targets = torch.cat(each)[None], torch.cat(target_of_each)[None]
        else:
            inputs, targets = self.rows(batch, dropped)
        labelled = targets != IGNORED
        logits = self.audio_head(self(inputs, packing)[labelled])
        target = targets[labelled]
        return LMLoss(F.cross_entropy(logits, target), (logits.argmax(-1) == target).float().mean())

    def log_likelihood(self, batch: LMBatch) -> Float[Tensor, " B"]:
        """Of all codes of each row together, and of eos where it is complete, in nats."""
        inputs, targets = self.rows(batch)
        logits = self.audio_head(self(inputs)).transpose(1, 2)
        return -F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none").sum(1)

    def draw_next(self, batch: LMBatch) -> Int[Tensor, "B T"]:
        """In the place of each code, one drawn from what the model expects after the codes before it; eos is not drawn."""
        inputs, targets = self.rows(batch)
        states, labelled = self(inputs), targets != IGNORED
        each = [
            row[known][:length]
            for row, known, length in zip(states, labelled, batch.code_lengths.tolist(), strict=True)
        ]
        logits = self.audio_head(pad_sequence(each, batch_first=True))[..., : self.config.codebook_size].float()
        return (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)
