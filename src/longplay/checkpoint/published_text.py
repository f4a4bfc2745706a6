"""The text tokenizer of a published model: Qwen's byte-level BPE with twelve special tokens (CHECKPOINTS.md 3.1)."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from longplay.errors import CheckpointError

SPECIAL_TOKENS = (
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
# Qwen2's pre-tokenizer: contractions, words, single digits, punctuation, line breaks, spaces.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_text_tokenizer(directory: Path) -> Tokenizer:
    """From `tokenizer.json`, or else from `vocab.json`, `merges.txt` and `tokenizer_config.json`.

    Raises:
        CheckpointError: the files are missing or damaged.
    """
    whole = directory / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(whole)) if whole.is_file() else _from_parts(directory)
    except CheckpointError:
        raise
    except Exception as error:  # the Rust side raises bare Exception
        raise CheckpointError(f"{whole}: is not a tokenizer file ({error}); download the model again") from None
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def _from_parts(directory: Path) -> Tokenizer:
    vocabulary, merges, settings = (directory / name for name in ("vocab.json", "merges.txt", "tokenizer_config.json"))
    for path in (vocabulary, merges, settings):
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing, and so is tokenizer.json; download the model again")
    tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added: dict[str, dict[str, object]] = json.loads(settings.read_text(encoding="utf-8")).get(
        "added_tokens_decoder", {}
    )
    for _, token in sorted(added.items(), key=lambda item: int(item[0])):
        tokenizer.add_special_tokens([AddedToken(str(token["content"]), special=True, normalized=False)])
    return tokenizer
