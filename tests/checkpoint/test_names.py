import pytest

from longplay.checkpoint.names import TABLES, ModelName, is_unused, to_native, to_published
from longplay.errors import CheckpointError
from published_tables import published_table

PUBLISHED: list[tuple[ModelName, str, str]] = [
    ("tokenizer", "4.1", ""),
    ("flow", "4.2", ""),
    ("lm", "4.3", ""),
    ("lm", "4.4", ""),
    ("codec", "4.5", "encoder."),
    ("codec", "4.6", "quantizer."),
    ("codec", "4.7", "generator."),
]


@pytest.mark.parametrize(("model", "section", "part"), PUBLISHED)
def test_every_published_name_maps_to_a_native_one_and_back(model: ModelName, section: str, part: str) -> None:
    names = [part + name for name in published_table(section) if not is_unused(model, part + name)]
    natives = [to_native(model, name) for name in names]
    assert len(set(natives)) == len(names)
    assert [to_published(model, name) for name in natives] == names


def test_the_unused_part_of_the_tokenizer_is_the_encodec_decoder() -> None:
    unused = [name for name in published_table("4.1") if is_unused("tokenizer", name)]
    assert unused
    assert all(name.startswith("feature_extractor.encodec.decoder.") for name in unused)


@pytest.mark.parametrize("model", TABLES)
def test_an_unknown_tensor_is_refused_by_name(model: ModelName) -> None:
    with pytest.raises(CheckpointError, match="optimizer_step"):
        to_native(model, "optimizer_step")
    with pytest.raises(CheckpointError, match="optimizer_step"):
        to_published(model, "optimizer_step")


@pytest.mark.parametrize("model", TABLES)
def test_both_sides_of_a_row_hold_the_same_wildcards(model: ModelName) -> None:
    for native, published in TABLES[model]:
        stars = [[part for part in side.split(".") if "*" in part] for side in (native, published)]
        assert stars[0] == stars[1]
