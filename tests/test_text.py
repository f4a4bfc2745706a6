import json
import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_fixtures import Golden
from longplay.errors import CheckpointError, ConfigError
from longplay.text import PUBLISHED_SPECIAL_TOKENS, TextTokenizer

CAPTIONS = [
    "calm piano, slow, 70 bpm, A minor",
    "fast drum & bass, 174 bpm, F minor",
    "calm ambient pads, slow, 60 bpm, C major",
    "fast chiptune, 150 bpm, A minor",
]
TRAINED = TextTokenizer.train(CAPTIONS, vocab_size=300)


@pytest.fixture
def published(golden_directory: Path) -> Path:
    return golden_directory / "tiny_checkpoint"


@pytest.mark.golden
@pytest.mark.parametrize("parts", [False, True], ids=["tokenizer.json", "vocab.json+merges.txt"])
def test_published_ids_are_exact(published: Path, golden: type[Golden], tmp_path: Path, parts: bool) -> None:
    directory = published
    if parts:
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
            shutil.copy(published / name, tmp_path)
        directory = tmp_path
    tokenizer = TextTokenizer.load_published(directory)
    expected = golden("tiny_checkpoint_expected")
    for text, name in zip(expected.meta["texts"], ("", "_1", "_2"), strict=True):
        ids = tokenizer.encode(text)
        assert ids == expected.outputs[f"llm.text_ids{name}"].tolist()
        assert tokenizer.decode(ids) == text


@pytest.mark.golden
def test_special_tokens_that_qwen_lacks_get_the_next_free_ids(published: Path) -> None:
    tokenizer = TextTokenizer.load_published(published)
    stored = json.loads((published / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    known = {token["content"]: token["id"] for token in stored}
    free = max(known.values()) + 1
    new = [token for token in PUBLISHED_SPECIAL_TOKENS if token not in known]
    assert len(new) == 10
    assert [tokenizer.encode(token) for token in new] == [[free + offset] for offset in range(10)]
    assert tokenizer.encode("<|im_end|>") == [known["<|im_end|>"]]


def test_a_trained_vocabulary_survives_saving(tmp_path: Path) -> None:
    path = tmp_path / "text.json"
    TRAINED.save(path)
    loaded = TextTokenizer.load(path)
    assert loaded.vocab_size == TRAINED.vocab_size
    assert loaded.encode(CAPTIONS[0]) == TRAINED.encode(CAPTIONS[0])
    assert [entry.name for entry in tmp_path.iterdir()] == ["text.json"]


def test_training_is_deterministic_and_shortens_what_it_saw() -> None:
    assert TextTokenizer.train(CAPTIONS, vocab_size=300).to_json() == TRAINED.to_json()
    assert 256 < TRAINED.vocab_size <= 300
    assert len(TRAINED.encode(CAPTIONS[0])) < len(CAPTIONS[0]) * 0.8


@given(st.text(max_size=40))
@settings(max_examples=100)
def test_every_text_comes_back_in_composed_form(text: str) -> None:
    ids = TRAINED.encode(text)
    assert all(0 <= item < TRAINED.vocab_size for item in ids)
    assert TRAINED.decode(ids) == unicodedata.normalize("NFC", text)


def test_an_empty_text_has_no_ids() -> None:
    assert TRAINED.encode("") == []


def test_a_vocabulary_below_the_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match="vocab_size = 100"):
        TextTokenizer.train(CAPTIONS, vocab_size=100)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"text\.json"):
        TextTokenizer.load(tmp_path / "text.json")
    with pytest.raises(CheckpointError, match=r"vocab\.json"):
        TextTokenizer.load_published(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        TextTokenizer.load_published(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="damaged"):
        TextTokenizer.load_published(tmp_path)
