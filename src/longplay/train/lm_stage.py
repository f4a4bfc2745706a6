"""Stage `lm`: next-code prediction on windows of token shards, with captions, times and structure labels."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from longplay.checkpoint.adapter import AdapterConfig, save_adapter
from longplay.config import Config
from longplay.data.captions import some_tags
from longplay.data.token_tracks import TokenTrack
from longplay.data.token_windows import TokenWindow, TokenWindows
from longplay.engine.decode import generate
from longplay.engine.piece import Piece
from longplay.files import write_text
from longplay.models.lm import LM, LMBatch
from longplay.models.lm_config import LMConfig
from longplay.models.tokenizer import Tokenizer
from longplay.prompt import GenerationOptions
from longplay.report import to_json
from longplay.text import TextTokenizer
from longplay.train.export import export_model
from longplay.train.lm_examples import Example, collate, tensors
from longplay.train.loop_config import LoopConfig
from longplay.train.lora import LoRAConfig, lora_tensors, merged
from longplay.train.packing import fill_rows
from longplay.train.preference import Preference, PreferenceConfig
from longplay.train.samples import write_sample
from longplay.train.stage import Batch, Losses
from longplay.train.update import SEEDS_APART

BEST = "best.json"
STRETCH_FRAMES = 16  # that are misheard together, where the model mishears itself
_PAIR = "pair_"  # of a batch: fields of the takes


class LMStageConfig(Config):
    """Everything of an `lm` run.

    Attributes:
        lm: the model; it trains on windows of `lm.context_frames` codes.
        tokenizer: the model directory that turns codes into samples to listen to.
        init: a model whose lm this run starts from, e.g. that of the stage before: a directory, or a name on a hub; also one of
            Qwen2.5, of whose weights those of text and layers are taken.
        text: whose text tokenizer: the run's `own`, learnt from the captions (the text embedding then starts afresh
            unless `init` holds the same one), or that of `init`.
        lora: train a low-rank change of `init`'s lm alone; `model/` is then an adapter.
        keep: token shards of other music, whose held-out loss is measured too.
        keep_share: of the windows learnt from that are of `keep`, so that it is not forgotten.
        keep_best: export the model of the evaluation with the least held-out loss, not that of the last one.
        opening_frames: every second step takes windows of only so many codes, and as many more of them. The text
            tells most before there is music to go on from, which is a few codes out of a long window.
        tag_dropout: of a caption that lists tags, the largest share of them that is left out, drawn anew for every window; the
            others come in any order. So a tag means the same whichever others stand beside it, and no list names its piece.
        misheard: the largest share of the codes before the predicted ones that are exchanged, drawn anew for every window.
        misheard_for: one by one for `others` of the window; or in stretches of 16 for what the `model` would have gone on with
            had it been told what another window of the batch is told (scheduled sampling, arXiv 1906.07651): so it hears
            mistakes of its own, and finds back to what it is told.
        rearranged: share of the windows whose beats are exchanged for those at the same place of other bars of the piece, so that
            what comes next follows from what the model is told, and less from what it has heard.
        plain_steps: last steps of the run, in which nothing is misheard or rearranged.
        preference: learn, beside the music, from which of two takes from one prompt is the better one.
        row_positions: pack windows, blind to each other, in rows of at most so many positions (text, structure and codes);
            pieces shorter than a window then count too, whole. `batch_size` is a number of rows. None: a window is a
            row, shorter ones are padded.
    """

    stage: Literal["lm"]
    lm: LMConfig
    tokenizer: Path
    init: Path | None = None
    text: Literal["own", "init"] = "own"
    lora: LoRAConfig | None = None
    keep: Path | None = None
    keep_share: float = Field(default=0.0, ge=0, lt=1)
    keep_best: bool = False
    opening_frames: int | None = Field(default=None, gt=1)
    tag_dropout: float = Field(default=0.0, ge=0, lt=1)
    misheard: float = Field(default=0.0, ge=0, lt=1)
    misheard_for: Literal["others", "model"] = "others"
    rearranged: float = Field(default=0.0, ge=0, le=1)
    plain_steps: int = Field(default=0, ge=0)
    preference: PreferenceConfig | None = None
    row_positions: int | None = Field(default=None, gt=1)
    batch_size: int = Field(default=8, gt=0)
    held_out_windows: int = Field(default=16, gt=0)
    sample_seconds: float = Field(default=10.0, ge=0, description="of each sample; 0: none are made")
    loop: LoopConfig

    @model_validator(mode="after")
    def _starts_somewhere(self) -> Self:
        if self.keep_share and self.keep is None:
            raise ValueError(f"keep_share = {self.keep_share:g} of which music: set keep")
        if self.init is None and (self.lora is not None or self.text == "init"):
            raise ValueError("lora and text = init need the model to start from: set init")
        if self.preference is not None and self.text != "init":
            raise ValueError("preference compares with the model to start from: set init, and text = init")
        return self

    @model_validator(mode="after")
    def _some_steps_are_not_plain(self) -> Self:
        if (self.misheard or self.rearranged) and self.plain_steps >= self.loop.steps:
            raise ValueError(
                f"plain_steps = {self.plain_steps} of loop.steps = {self.loop.steps}: nothing is ever misheard or rearranged; "
                "set plain_steps to less, or misheard and rearranged to 0"
            )
        return self

    @model_validator(mode="after")
    def _a_row_holds_a_window(self) -> Self:
        frames = self.lm.context_frames
        if self.row_positions is not None and frames is not None and self.row_positions <= frames:
            raise ValueError(
                f"row_positions {self.row_positions} must exceed lm.context_frames {frames}, by the text's ids"
            )
        return self


class LMStage:
    """Trains the language model.

    Args:
        config: of the run.
        tokenizer: makes samples of codes.
        text: turns captions into ids.
        train_tracks, held_out_tracks: to learn from, and to measure with.
        kept_tracks: other music to measure with.
        rehearsed_tracks: other music to learn from, for `config.keep_share`.
        adapter: what an exported adapter says of itself; with `config.lora` only.
        reference: the model that this run starts from; with `config.preference` only.
    """

    def __init__(
        self,
        config: LMStageConfig,
        tokenizer: Tokenizer,
        text: TextTokenizer,
        train_tracks: Sequence[TokenTrack],
        held_out_tracks: Sequence[TokenTrack],
        kept_tracks: Sequence[TokenTrack] = (),
        rehearsed_tracks: Sequence[TokenTrack] = (),
        adapter: AdapterConfig | None = None,
        reference: LM | None = None,
    ) -> None:
        if config.lm.context_frames is None:
            raise ValueError("stage lm trains on windows: set lm.context_frames")
        self.name = "lm"
        self.config = config
        self.tokenizer = tokenizer
        self.text = text
        self.model = LM(config.lm)
        self.adapter = adapter
        packed = config.row_positions is not None
        self.windows = TokenWindows(train_tracks, config.lm.context_frames, packed, rehearsed_tracks, config.keep_share)
        self.held_out = TokenWindows(held_out_tracks, config.lm.context_frames, shorter=packed)
        self.openings: TokenWindows | None = None
        if config.opening_frames is not None:
            self.openings = TokenWindows(
                train_tracks, config.opening_frames, packed, rehearsed_tracks, config.keep_share
            )
            self.held_out_openings = TokenWindows(held_out_tracks, config.opening_frames, shorter=packed)
        self.kept = TokenWindows(kept_tracks, config.lm.context_frames, shorter=packed) if kept_tracks else None
        self.preference: Preference | None = None
        if config.preference is not None and reference is not None:
            self.preference = Preference(config.preference, reference, text, config.held_out_windows)
        self._measured: dict[str, float] = {}
        self.others = nn.ModuleDict()
        self.learning_rates: dict[str, float] = {}
        self.blocks = list(self.model.layers)
        self.partial_gradients = False
        self.keeps_resting = config.lm.style_dim > 0 and config.lora is None  # what words sound like was computed
        self.batch_size = config.batch_size

    def batch(self, step: int, rows: slice) -> Batch:
        """The fields of `LMBatch`, and `weight`: the rows' share of all targets, times the parts.

        A row is a window, or in a step of openings as many of them as fill one; or it is packed, and `filled` tells how
        much of its positions is in use.
        """
        drawn, per_row = self.windows, 1
        if self.openings is not None and step % 2:
            drawn, per_row = self.openings, max(1, self.windows.frames // self.openings.frames)
        first, stop, _ = rows.indices(self.batch_size)
        every = self._packed(drawn, step) if self.config.row_positions else self._rows(drawn, step, per_row)
        if not self._plain(step):
            rng = np.random.default_rng((self.config.loop.seed, step, 1))  # beside the stream of the windows
            every = [[self._disturbed(example, rng) for example in row] for row in every]
        chosen = [example for row in every[first:stop] for example in row]
        targets = sum(example.targets for row in every for example in row)
        parts = self.batch_size / (stop - first)
        weight = torch.tensor(sum(example.targets for example in chosen) * parts / targets)
        made = tensors(collate(chosen)) | {"weight": weight}
        if self.config.row_positions:
            used = sum(example.before + example.frames for example in chosen)
            made["filled"] = torch.tensor(used / (self.config.row_positions * (stop - first)))
        if self.preference is not None:
            pairs = self.preference.batch(self.config.loop.seed, step, rows, self.batch_size)
            made |= {_PAIR + name: value for name, value in pairs.items()}
        return made

    def _rows(self, drawn: TokenWindows, step: int, per_row: int) -> list[list[Example]]:
        windows = list(self._told(drawn.batch(self.config.loop.seed, step, self.batch_size * per_row), step))
        generator = self._dropout(step)
        dropped, free = (self.model.draw_dropped(len(windows), generator).tolist() for _ in range(2))
        every = [self._example(*each) for each in zip(windows, dropped, free, strict=True)]
        return [every[first : first + per_row] for first in range(0, len(every), per_row)]

    def _packed(self, drawn: TokenWindows, step: int) -> list[list[Example]]:
        assert self.config.row_positions is not None
        generator = self._dropout(step)
        examples = (
            self._example(window, *(bool(self.model.draw_dropped(1, generator)) for _ in range(2)))
            for window in self._told(drawn.draw(self.config.loop.seed, step), step)
        )
        return fill_rows(examples, self.batch_size, self.config.row_positions)

    def _dropout(self, step: int) -> torch.Generator:
        """Draws which windows of a step are learnt without text: other ones for every seed."""
        return torch.Generator().manual_seed(self.config.loop.seed * SEEDS_APART + step)

    def _told(self, windows: Iterable[TokenWindow], step: int) -> Iterator[TokenWindow]:
        """With some of the tags of their captions."""
        rng = np.random.default_rng((self.config.loop.seed, step, 2))
        dropout = self.config.tag_dropout
        for window in windows:
            yield replace(window, caption=some_tags(window.caption, dropout, rng)) if dropout else window

    def losses(self, step: int, batch: Batch) -> Losses:
        """Next-code cross-entropy, and what pairs of takes cost."""
        pairs = {name.removeprefix(_PAIR): value for name, value in batch.items() if name.startswith(_PAIR)}
        fields = {name: value for name, value in batch.items() if not name.startswith(_PAIR)}
        weight, filled = fields.pop("weight"), fields.pop("filled", None)
        heard = LMBatch(**fields)
        if self.config.misheard and self.config.misheard_for == "model" and not self._plain(step):
            heard = self._misheard(heard)
        loss, accuracy = self.model.loss(heard, packed=self.config.row_positions is not None)
        loss = loss * weight
        metrics = {"loss": loss.detach(), "accuracy": accuracy}
        if filled is not None:
            metrics["filled"] = filled
        if self.preference is not None:
            preference, found = self.preference.loss(self.model, LMBatch(**pairs))
            loss, metrics = loss + preference, metrics | found
        return Losses({"model": loss}, metrics)

    def _plain(self, step: int) -> bool:
        """Whether a step takes music as it is."""
        return step >= self.config.loop.steps - self.config.plain_steps

    def _disturbed(self, example: Example, rng: np.random.Generator) -> Example:
        config = self.config
        if config.rearranged and rng.random() < config.rearranged:
            example = example.rearranged(rng)
        if config.misheard and config.misheard_for == "others":
            example = example.misheard(config.misheard, rng)
        return example

    def _misheard(self, batch: LMBatch) -> LMBatch:
        """With stretches of the codes heard exchanged for what the model would have gone on with there, told of another row."""
        rows, frames = batch.codes.shape
        told = {name: getattr(batch, name) for name in ("ids", "id_lengths", "control", "style")}
        wrong = {name: value.roll(1, 0) for name, value in told.items() if value is not None}
        with torch.no_grad():
            drawn = self.model.draw_next(replace(batch, **wrong))
        share = self.config.misheard * torch.rand(rows, 1, device=drawn.device)
        stretches = torch.rand(rows, -(-frames // STRETCH_FRAMES), device=drawn.device) < share
        misheard = stretches.repeat_interleave(STRETCH_FRAMES, dim=1)[:, :frames]
        return replace(batch, heard=torch.where(misheard, drawn, batch.codes))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss and accuracy on fixed windows, with all that is said of them, without any of it (`loss_without_text`), and
        with words alone (`loss_without_control`).

        Also those of openings (`opening_loss`) and of other music (`kept_loss`), where there are any.
        """
        assert isinstance(model, LM)
        size = self.config.held_out_windows
        metrics = self._held_out(model, self.held_out.batch(1, 0, size))
        if self.openings is not None:
            opening = self._held_out(model, self.held_out_openings.batch(1, 0, 4 * size))
            metrics |= {f"opening_{name}": value for name, value in opening.items()}
        if self.kept is not None:
            kept = self._held_out(model, self.kept.batch(1, 0, size))
            metrics |= {f"kept_{name}": value for name, value in kept.items()}
        if self.preference is not None:
            metrics |= self.preference.evaluate(model)
        self._measured = metrics
        return metrics

    def _held_out(self, model: LM, windows: list[TokenWindow]) -> dict[str, float]:
        device = next(model.parameters()).device
        rows = []
        for window in windows:
            batch = collate([self._example(window)]).to(device)
            loss, accuracy = model.loss(batch)
            without, _ = model.loss(batch, torch.ones(1, dtype=torch.bool))
            row = {"loss": loss, "accuracy": accuracy, "loss_without_text": without}
            if batch.control is not None or batch.style is not None:
                row["loss_without_control"], _ = model.loss(replace(batch, control=None, style=None))
            rows.append(row)
        return {name: float(np.mean([float(row[name]) for row in rows])) for name in rows[0]}

    def sample(self, model: nn.Module, directory: Path) -> None:
        """Two pieces made from held-out captions, through the tokenizer's decoder, beside the pieces they describe."""
        if not self.config.sample_seconds:
            return
        assert isinstance(model, LM)
        if self.config.lora is not None:
            model = merged(model, self.config.lora)
        frames = round(self.config.sample_seconds * self.config.lm.code_rate)
        for index, window in enumerate(self.held_out.batch(2, 0, 2)):
            ids = tuple(self.text.encode(window.caption))
            control = window.track.control if self.config.lm.control else None
            piece = Piece(ids=ids, frames=frames, seed=index, sections=window.track.sections, control=control)
            codes = torch.cat(list(generate(model, [piece], GenerationOptions())), dim=1).cpu()
            original = torch.from_numpy(window.semantic[:frames].astype(np.int64)).unsqueeze(0)
            made, real = self.tokenizer.decode(codes)[0, 0], self.tokenizer.decode(original)[0, 0]
            write_sample(directory / f"{index}", real, made, self.tokenizer.config.sample_rate)
            (directory / f"{index}.txt").write_text(window.caption + "\n", encoding="utf-8")

    def report(self, run: Path) -> None:
        """Nothing: the curves show all."""

    def export(self, model: nn.Module, directory: Path) -> None:
        """Native model directory with this one model and its text tokenizer; with `lora`, an adapter.

        With `keep_best`, nothing happens where an earlier evaluation of the run was better; `best.json` holds its metrics.
        """
        best = directory.parent / BEST
        if self.config.keep_best and best.is_file():
            before: dict[str, float] = json.loads(best.read_text(encoding="utf-8"))
            if before["loss"] <= self._measured["loss"]:
                return
        if self.adapter is None:
            export_model("lm", model, self.config.lm, directory, self.text)
        else:
            assert isinstance(model, LM)
            directory.parent.mkdir(parents=True, exist_ok=True)
            save_adapter(directory, self.adapter, lora_tensors(model))
        if self.config.keep_best:
            write_text(best, to_json(self._measured))

    def _example(self, window: TokenWindow, dropped: bool = False, free: bool = False) -> Example:
        """`dropped`: without words, bars, tempo, key and style; `free`: with words alone."""
        ids = () if dropped else tuple(self.text.encode(window.caption))
        held = not (dropped or free)
        # an adapter learns what the words of its music mean, which would be known already
        return Example(window, ids, self.config.lm, held, styled=held and self.config.lora is None)
