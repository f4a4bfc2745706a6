"""Text <-> ids, by byte-level BPE over the `tokenizers` library.

Published models bring Qwen2's vocabulary with twelve special tokens (CHECKPOINTS.md 3.1); ours train a small one on
captions. Nothing is added at either end of a text, and no text is unknown: every byte has an id.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from longplay.errors import CheckpointError, ConfigError
from longplay.files import write_text

PUBLISHED_SPECIAL_TOKENS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endofprompt|>",
    "[breath]",
    "<strong>",
    "</strong>",
    "[noise]",
    "[laughter]",
    "[cough]",
    "[clucking]",
    "[accent]",
    "[quick_breath]",
)
NUM_BYTES = 256
# Qwen2's split: contractions, words, single digits, punctuation, line breaks, spaces.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class TextTokenizer:
    """A vocabulary and how to apply it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self._tokenizer.get_vocab_size()

    @classmethod
    def load(cls, path: Path) -> "TextTokenizer":
        """Read the JSON file that `save` writes.

        Raises:
            CheckpointError: it is missing or no such file.
        """
        return cls(_read(path))

    @classmethod
    def load_published(cls, directory: Path) -> "TextTokenizer":
        """Qwen2's files: `tokenizer.json`, or else `vocab.json`, `merges.txt` and `tokenizer_config.json`.

        Special tokens that Qwen2 lacks get the next free ids.

        Raises:
            CheckpointError: files are missing or damaged.
        """
        whole = directory / "tokenizer.json"
        tokenizer = _read(whole) if whole.is_file() else _from_parts(directory)
        tokenizer.add_special_tokens(_special(PUBLISHED_SPECIAL_TOKENS))
        return cls(tokenizer)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "TextTokenizer":
        """A vocabulary of at most `vocab_size` ids made of the most frequent pairs in `texts`.

        Raises:
            ConfigError: `vocab_size` does not even hold the 256 bytes.
        """
        if vocab_size < NUM_BYTES:
            raise ConfigError(f"vocab_size = {vocab_size}: must be at least {NUM_BYTES}, one id for each byte")
        tokenizer = _byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    def save(self, path: Path) -> None:
        """Write everything to one JSON file, atomically."""
        write_text(path, self.to_json())

    def to_json(self) -> str:
        """The contents of the file that `save` writes."""
        return self._tokenizer.to_str()

    def encode(self, text: str) -> list[int]:
        """Ids of a text; an empty text has none."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, special tokens included; bytes that are no UTF-8 become replacement characters."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)


def _read(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); download or convert the model again"
        ) from None
    except Exception as error:  # the Rust side raises bare Exception
        raise CheckpointError(f"{path}: is no tokenizer file ({error}); download or convert the model again") from None


def _from_parts(directory: Path) -> Tokenizer:
    vocabulary, merges, settings = (directory / name for name in ("vocab.json", "merges.txt", "tokenizer_config.json"))
    for path in (vocabulary, merges, settings):
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing, and so is tokenizer.json; download the model again")
    try:
        tokenizer = _byte_level(models.BPE.from_file(str(vocabulary), str(merges)))
        added: dict[str, dict[str, Any]] = json.loads(settings.read_text(encoding="utf-8"))["added_tokens_decoder"]
        in_order = sorted(added.items(), key=lambda item: int(item[0]))
        tokenizer.add_special_tokens(_special([str(token["content"]) for _, token in in_order]))
    except Exception as error:  # the Rust side raises bare Exception
        raise CheckpointError(
            f"{directory}: its tokenizer files are damaged ({error}); download the model again"
        ) from None
    return tokenizer


def _byte_level(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, letters])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _special(tokens: Sequence[str]) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in tokens]
