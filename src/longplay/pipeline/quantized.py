"""The int8 form of an lm: made once, kept in the weight file of the lm itself (`train release`) or beside the model; and int4, beside it.

```
lm.safetensors          with projections in int8 (checkpoint/quantized.py); metadata: forms of all projections, measured quality
lm.int8.safetensors     those projections alone; metadata: also the digest of the weights that they were made from
lm.int4.safetensors     the same, most of them in int4
```
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from longplay.checkpoint.quantized import narrow, read_int4, read_int8
from longplay.checkpoint.store import is_native, load_tensors, read_metadata, save_tensors, weights_file
from longplay.checkpoint.system import System, load_system
from longplay.engine.listening import Quality, compare, listen
from longplay.engine.quantize import ERROR_LIMIT, QuantizedProjection, quantize, quantize_to_int4
from longplay.errors import CheckpointError
from longplay.models.lm import LM
from longplay.nn import compiled, processor
from longplay.nn.decoder import Decoder
from longplay.nn.int4 import Int4Weights
from longplay.nn.linear import Dense, Weights, stack_biases, stack_linears
from longplay.nn.quantized import Int8Weights, RoundedWeights
from longplay.text import TextTokenizer

Kind = Literal["int8", "int4"]
_FORMATS: dict[Kind, str] = {"int8": "2", "int4": "1"}
KL_LIMIT = 0.02
"""Nats per code that int8 may differ from float32 to be taken by itself; five times as much was not heard (docs/experiments.md)."""
ERROR_LIMITS = (ERROR_LIMIT, ERROR_LIMIT / 2, ERROR_LIMIT / 4)
CALIBRATION_FRAMES = 150
CALIBRATION_TEXT = "calm piano with soft strings"
INT4_TEXTS = (
    CALIBRATION_TEXT,
    "fast rock, electric guitar, drums",
    "dark electronic, synth, bass",
    "epic orchestral, brass, choir",
)
INT4_KEPT_INPUTS = 1200  # what makes up for an error is learnt from the inputs; of several texts

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Quantized:
    """An lm in int8 or int4.

    Attributes:
        projections: by name.
        quality: against float32, on a piece that calibration has not seen: with inputs of eight bits ("int8"), as torch's
            kernels have but on x86 without VNNI, and, where the machine that made it could, by our own kernels
            ("int8-compiled"), whose inputs are rounded otherwise; that of bfloat16 beside it. In int4 ("int4") by our own,
            which are the only ones.
    """

    projections: Mapping[str, QuantizedProjection]
    quality: Mapping[str, Quality]

    def is_close(self, compiled: bool = True) -> bool:
        """Whether it may stand for float32 unasked, by our own kernels or by torch's."""
        return self.kl(compiled) <= KL_LIMIT

    def kl(self, compiled: bool = True) -> float:
        """From float32, in nats a code: by our own kernels, if `compiled` and measured, else with inputs of eight bits."""
        ours = self.quality.get("int8-compiled") if compiled else None
        return (ours or self.quality["int8"]).kl

    def decoder(self, lm: LM, compiled: bool = False) -> Decoder:
        """What computes with it, by torch's kernels or our own."""
        if compiled:
            return lm.compiled_decoder({name: projection.weights for name, projection in self.projections.items()})
        return lm.decoder({name: projection.projection() for name, projection in self.projections.items()})

    def describe(self) -> list[str]:
        """Lines for a reader: forms of the projections, and quality."""
        forms = Counter((projection.form, projection.apart) for projection in self.projections.values())
        return [
            f"{count:4d} projections in {form}" + (f", {apart} channels kept apart" if apart else "")
            for (form, apart), count in sorted(forms.items())
        ] + [
            f"{name} against float32: KL {quality.kl:.5f} nats a code, {quality.top_overlap:.1%} of the likeliest 350 "
            f"shared, likeliest code the same in {quality.likeliest:.1%}"
            for name, quality in self.quality.items()
        ]


def file_of(kind: Kind) -> str:
    """The name of the file beside a model that holds a form."""
    return f"lm.{kind}.safetensors"


def quantize_lm(lm: LM, text_tokenizer: TextTokenizer | None, kind: Kind = "int8") -> Quantized:
    """A form of an lm, with its quality.

    Args:
        lm: in float32 on the CPU, not prepared.
        text_tokenizer: of its model.
        kind: of form.

    Raises:
        UserError: this build of torch has no int8, or this machine cannot compile steps, which int4 needs.
    """
    texts = (CALIBRATION_TEXT,) if kind == "int8" else INT4_TEXTS
    ids = [tuple(text_tokenizer.encode(text)) for text in texts] if text_tokenizer is not None else [()]
    return _in_int8(lm, ids[0]) if kind == "int8" else _in_int4(lm, ids)


def _in_int4(lm: LM, texts: Sequence[Sequence[int]]) -> Quantized:
    compiled.require("int4", lm.config.head_dim)
    heard = listen(lm, texts, CALIBRATION_FRAMES, INT4_KEPT_INPUTS)
    wide = quantize(lm, heard.inputs)
    forms = {"int4": Quantized(quantize_to_int4(lm, heard.inputs, wide), {}), "int8-compiled": Quantized(wide, {})}
    decoders = {name: form.decoder(lm, compiled=True) for name, form in forms.items()}
    return replace(forms["int4"], quality=compare(decoders, heard))


def _in_int8(lm: LM, ids: Sequence[int]) -> Quantized:
    """The int8 form of an lm, with its quality.

    Where the usual limit for the error of a projection leaves the whole too far off, stricter ones are tried: more
    channels, and then whole projections, keep more bits.
    """
    heard = listen(lm, [ids], CALIBRATION_FRAMES)
    compilable = processor.can_compile() and compiled.fits(lm.config.head_dim)
    for limit in ERROR_LIMITS:
        form = Quantized(quantize(lm, heard.inputs, limit), {})
        judged = {"int8-compiled": form.decoder(lm, compiled=True)} if compilable else {"int8": _eight_bits(lm, form)}
        form = replace(form, quality=compare(judged, heard))
        if form.is_close():
            break
        logger.info("projections within %.3f: KL %.5f, more than %g", limit, form.kl(), KL_LIMIT)
    quality = dict(form.quality)
    if compilable:  # slower by far, and said for machines that cannot
        quality |= compare({"int8": _eight_bits(lm, form)}, heard)
    half = lm.decoder({name: Dense(weights, torch.bfloat16) for name, weights in lm.linears()})
    return replace(form, quality=quality | compare({"bfloat16": half}, heard, at_once=True))


def _eight_bits(lm: LM, form: Quantized) -> Decoder:
    return lm.decoder({name: projection.arithmetic() for name, projection in form.projections.items()})


def quantize_model(name_or_path: str | Path, kind: Kind = "int8", offline: bool = False) -> tuple[Path, Quantized]:
    """Make a form of a model's lm and write it beside the model; one that is stored in int8 stays as it is.

    Returns:
        the file that holds the form, and what is in it.

    Raises:
        CheckpointError: no such model, one without an lm, or its directory cannot be written.
        DownloadError: a hub cannot be reached.
        UserError: see `quantize_lm`.
    """
    system = load_system(name_or_path, offline=offline)
    if system.lm is None:
        raise CheckpointError(f"model {str(name_or_path)!r}: has no lm to quantize")
    stored = _stored(system, system.lm) if kind == "int8" else None
    if stored is not None:
        return weights_file(system.directory, "lm"), stored
    made, path = quantize_lm(system.lm, system.text_tokenizer, kind), system.lm_directory / file_of(kind)
    try:
        save_quantized(system, made, kind)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror}); copy the model to a place of yours"
        ) from None
    return path, made


def quantize_and_keep(system: System, name: str, kind: Kind = "int8") -> Quantized:
    """As `quantize_model`, for a system that is open, which messages call `name`; a form that cannot be kept is used all the same."""
    assert system.lm is not None
    logger.warning("%s: its language model is made %s, once; a large one takes minutes", name, kind)
    system.lm.float()  # it may be `lean`
    made = quantize_lm(system.lm, system.text_tokenizer, kind)
    try:
        save_quantized(system, made, kind)
    except OSError as error:
        place = system.lm_directory / file_of(kind)
        logger.warning(
            "%s: cannot be kept (%s), so it is made again each time; copy the model to where it can",
            place,
            error.strerror,
        )
    return made


def load_quantized(system: System, kind: Kind = "int8") -> Quantized | None:
    """The form that the lm of `system` is stored in, or else what `save_quantized` wrote; None where there is neither.

    Args:
        system: with an lm on the CPU, not prepared.
        kind: of form.

    Raises:
        CheckpointError: it is damaged.
    """
    assert system.lm is not None
    stored = _stored(system, system.lm) if kind == "int8" else None
    path = system.lm_directory / file_of(kind)
    if stored is not None or not path.is_file():
        return stored
    metadata = read_metadata(path)
    if metadata.get(f"longplay_{kind}") != _FORMATS[kind] or metadata.get("source") != system.lm_digest:
        logger.info("%s: was made from other weights; ignored", path)
        return None
    system.note_lm_digest()
    return _read(path, metadata, system.lm, kind)


def save_quantized(system: System, made: Quantized, kind: Kind = "int8") -> None:
    """Write a form of the lm of `system` beside it.

    Raises:
        OSError: it cannot be written.
    """
    assert system.lm is not None
    metadata = {**form_metadata(made, kind), "source": system.lm_digest}
    save_tensors(system.lm_directory / file_of(kind), form_tensors(system.lm, made), metadata)
    system.note_lm_digest()


def form_tensors(lm: LM, made: Quantized) -> dict[str, Tensor]:
    """What takes the place of tensors of the lm in a weight file: its projections in int8 and int4."""
    tensors: dict[str, Tensor] = {}
    for name, layers in lm.linear_layers().items():
        weights = made.projections[name].weights
        if isinstance(weights, RoundedWeights):
            parts = weights.split([layer.out_features for layer in layers.values()])
            for key, part in zip(layers, parts, strict=True):
                tensors |= narrow(f"{key}.weight", part)
    return tensors


def form_metadata(made: Quantized, kind: Kind = "int8") -> dict[str, str]:
    """What the header of such a file says of the form."""
    about = {
        "forms": {name: projection.form for name, projection in made.projections.items()},
        "errors": {name: projection.error for name, projection in made.projections.items()},
        "quality": {name: asdict(quality) for name, quality in made.quality.items()},
    }
    return {f"longplay_{kind}": _FORMATS[kind], "about": json.dumps(about)}


def _stored(system: System, lm: LM) -> Quantized | None:
    if system.adapter is not None or not is_native(system.directory):  # the file holds the lm without the adapter
        return None
    path = weights_file(system.directory, "lm")
    metadata = read_metadata(path)
    return _read(path, metadata, lm, "int8") if metadata.get("longplay_int8") == _FORMATS["int8"] else None


def _read(path: Path, metadata: Mapping[str, str], lm: LM, kind: Kind) -> Quantized:
    tensors = load_tensors(path)
    try:
        about: dict[str, Any] = json.loads(metadata["about"])
        quality = {name: Quality(**values) for name, values in about["quality"].items()}
        projections = {}
        for name, layers in lm.linear_layers().items():
            linears, form = list(layers.values()), about["forms"][name]
            weights: RoundedWeights | Weights
            if form == "int8":
                eights = [read_int8(tensors, f"{key}.weight", str(path)) for key in layers]
                weights = Int8Weights.stack(eights, stack_biases(linears))
            elif form == "int4":
                inputs = linears[0].in_features
                fours = [read_int4(tensors, f"{key}.weight", inputs, str(path)) for key in layers]
                weights = Int4Weights.stack(fours, stack_biases(linears))
            else:
                weights = stack_linears(linears).to(getattr(torch, form))
            projections[name] = QuantizedProjection(weights, about["errors"][name])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its {kind} form is damaged ({error!r}); download or make it again") from None
    return Quantized(projections, quality)
