"""Language models of very small width: with random weights, and those of the golden fixture."""

from typing import Any

import torch

from golden_fixtures import Golden
from longplay.checkpoint.names import is_unused, to_native
from longplay.models.lm import LM
from longplay.models.lm_config import LMConfig


def tiny_config(**changes: Any) -> LMConfig:
    sizes = {"dim": 32, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "intermediate_dim": 48}
    return LMConfig.parse(
        {"text_vocab_size": 50, "codebook_size": 20, "code_rate": 75, "num_labels": 5, **sizes, **changes}
    )


def tiny_lm(**changes: Any) -> LM:
    torch.manual_seed(0)
    lm = LM(tiny_config(**changes)).eval()
    for parameter in lm.parameters():  # far from the small start of training, where every row looks alike
        torch.nn.init.normal_(parameter, std=0.3)
    return lm


def golden_lm(fixture: Golden) -> LM:
    qwen, llm = fixture.config["qwen2"], fixture.config["llm"]
    config = LMConfig(
        text_vocab_size=qwen["vocab_size"],
        codebook_size=llm["audio_token_size"],
        code_rate=1,
        num_labels=fixture.weights["chorus_embedding.weight"].shape[0],
        dim=qwen["hidden_size"],
        num_layers=qwen["num_hidden_layers"],
        num_heads=qwen["num_attention_heads"],
        num_kv_heads=qwen["num_key_value_heads"],
        intermediate_dim=qwen["intermediate_size"],
        rope_theta=qwen["rope_theta"],
        norm_eps=qwen["rms_norm_eps"],
        float16_time=True,
    )
    lm = LM(config)
    lm.load_state_dict({to_native("lm", name): w for name, w in fixture.weights.items() if not is_unused("lm", name)})
    return lm.eval()
