"""The baseline of `bench lm`: what one gets from `transformers` by writing the loop down."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from longplay.checkpoint.published_config import qwen_keys
from longplay.errors import UserError
from longplay.models.lm_config import LMConfig
from longplay.prompt import GenerationOptions


def transformers_loop(
    config: LMConfig, rows: int, prefix: int, chunk: int, dtype: torch.dtype, device: torch.device
) -> Iterator[Tensor]:
    """Codes of an eager loop over a Qwen2 of the same size with random weights and a head of the same width.

    It is a fair one: keys and values are cached, the rows of a guidance pair go together, and only the audio head
    is computed, which the published code does not manage.

    Args:
        config: sizes.
        rows: even; conditional and unconditional ones.
        prefix: positions before the first code.
        chunk: codes per item.
        dtype, device: of weights and computation.

    Raises:
        UserError: `transformers` is not installed.
    """
    try:
        from transformers import DynamicCache, Qwen2Config, Qwen2Model
    except ImportError:
        raise UserError(
            "the baseline needs transformers; install it with: pip install transformers, or use --baseline-seconds 0"
        ) from None
    sizes = Qwen2Config(**qwen_keys(config) | {"vocab_size": 1})
    with torch.device("meta"):
        parts = nn.ModuleList([Qwen2Model(sizes), nn.Linear(config.dim, config.codebook_size + 1)])
        embedding = nn.Embedding(config.codebook_size + 1, config.dim)
    rotary = type(parts[0].rotary_emb)(sizes)  # holds a table that is computed, not loaded
    model, head = parts.append(embedding).to_empty(device=device).to(dtype).eval()[:2]
    model.rotary_emb = rotary.to(device)
    for parameter in parts.parameters():
        nn.init.normal_(parameter, std=0.02)
    return _loop(model, head, parts[2], DynamicCache(config=sizes), rows, prefix, chunk)


@torch.no_grad()
def _loop(
    model: nn.Module, head: nn.Module, embedding: nn.Module, cache: object, rows: int, prefix: int, chunk: int
) -> Iterator[Tensor]:
    options, device = GenerationOptions(), next(embedding.parameters()).device
    inputs = embedding(torch.zeros(rows, prefix, dtype=torch.long, device=device))
    while True:
        codes = []
        for _ in range(chunk):
            hidden = model(inputs_embeds=inputs, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
            conditional, unconditional = head(hidden).float().chunk(2)
            logits = options.guidance * conditional + (1 - options.guidance) * unconditional
            values, classes = logits.topk(options.top_k)
            drawn = classes.gather(1, torch.multinomial(values.softmax(-1), 1))
            codes.append(drawn)
            inputs = embedding(drawn).repeat(2, 1, 1)
        yield torch.cat(codes, dim=1)
