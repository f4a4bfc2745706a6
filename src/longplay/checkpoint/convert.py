"""Conversion between the two layouts; published -> native -> published gives every tensor and small file back."""

from pathlib import Path
from typing import Literal

from longplay.checkpoint import carried, published, store
from longplay.checkpoint.system import load_config, load_text_tokenizer, load_weights
from longplay.errors import CheckpointError

Layout = Literal["native", "published"]


def convert(source: Path, destination: Path, to: Layout) -> None:
    """Write the model in directory `source` to the new directory `destination` in the layout `to`.

    Raises:
        CheckpointError: `source` is no model, is damaged, is in that layout already, or cannot be held by it;
            or `destination` is there already.
    """
    is_native = store.is_native(source)
    if not is_native and not published.is_published(source):
        raise CheckpointError(f"{source}: is not a model directory; give one with config.yaml or inspiremusic.yaml")
    if is_native == (to == "native"):
        raise CheckpointError(f"{source}: is in the {to} layout already; copy the directory instead")
    if to == "native":
        _to_native(source, destination)
    else:
        _to_published(source, destination)


def _to_native(source: Path, destination: Path) -> None:
    config = load_config(source)
    text_tokenizer = load_text_tokenizer(source)
    weights = {model: load_weights(source, model) for model in config.present}
    with store.new_directory(destination) as part:
        text = None if text_tokenizer is None else text_tokenizer.to_json().encode()
        store.write_native(part, config, weights, text)
        carried.carry(source, weights, part)


def _to_published(source: Path, destination: Path) -> None:
    _refuse_unpublishable(source)
    with store.new_directory(destination) as part:
        carried.restore(source, part)
        expected = store.load_config(source)
        written = load_config(part)
        for model in store.MODELS:
            if getattr(expected, model) != getattr(written, model):
                raise CheckpointError(
                    f"{source}: the {model} section of config.yaml is not that of the published model it was made from; "
                    "the published layout keeps that model's own config files"
                )


def _refuse_unpublishable(source: Path) -> None:
    config = store.load_config(source)
    spectral = [
        f"{name} {part}"
        for name, section in (("tokenizer", config.tokenizer), ("codec", config.codec))
        if section is not None
        for part in ("encoder", "decoder")
        if getattr(section, part).kind == "spectral"
    ]
    if spectral:
        raise CheckpointError(
            f"{source}: the published layout cannot hold spectral parts ({', '.join(spectral)}); keep it native"
        )
    if config.tokenizer is not None and config.tokenizer.num_codebooks > 1:
        raise CheckpointError(
            f"{source}: the published layout cannot hold a tokenizer of {config.tokenizer.num_codebooks} codebooks; "
            "keep it native"
        )
    if not carried.is_carried(source):
        raise CheckpointError(
            f"{source}: has no {carried.FOLDER} folder, so it was not made from a published model, whose config files and "
            "unused tensors the published layout needs; convert a published model to native and train that one further"
        )
