"""Tensor names: native on the left, published on the right, one table per model.

`TABLES[model]` is an ordered list of rows `(native pattern, published pattern)`. In a pattern `*` stands for
one dotted component (`12`, `weight_g`) and `**`, allowed at the end only, for one or more. Both sides of a row
hold the same wildcards in the same order; the matched text is carried over unchanged. The first row that
matches wins, so special rows come before general ones.

To add a row: append it to the model's list, above any more general row. To add a model's table: fill its list,
and list the published entries that our model does not have, such as dead layers and tied copies, in
`UNUSED[model]` (published patterns). The mapping must stay bijective on each model's tensors: the tests map
every published name of CHECKPOINTS.md section 4 to a native one and back.

Published names are those of the state dict inside the file; where one file holds several parts (the codec's
`model.pt` has `encoder`, `quantizer`, `generator`), the part's name comes first: `encoder.conv_pre.bias`.
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import Literal

from longplay.errors import CheckpointError

ModelName = Literal["tokenizer", "lm", "flow", "codec"]

_UNET = "decoder.estimator"
_SEANET = "feature_extractor.encodec.encoder.model"

TABLES: dict[ModelName, list[tuple[str, str]]] = {
    # CHECKPOINTS.md 4.1
    "tokenizer": [
        ("encoder.layers.*.lstm.*", f"{_SEANET}.*.lstm.*"),
        ("encoder.layers.*.block.*.conv.*", f"{_SEANET}.*.block.*.conv.conv.*"),
        ("encoder.layers.*.shortcut.conv.*", f"{_SEANET}.*.shortcut.conv.conv.*"),
        ("encoder.layers.*.conv.*", f"{_SEANET}.*.conv.conv.*"),
        ("codebook.*", "feature_extractor.encodec.quantizer.vq.layers.0._codebook.*"),
        ("decoder.blocks.**", "backbone.convnext.**"),
        ("decoder.final_norm.*", "backbone.final_layer_norm.*"),
        ("decoder.head.window", "head.istft.window"),
        ("decoder.head.**", "head.**"),
        ("decoder.**", "backbone.**"),
    ],
    # CHECKPOINTS.md 4.3 and 4.4
    "lm": [
        ("structure_embedding.*", "chorus_embedding.*"),
        ("task_embedding.*", "llm_embedding.*"),
        ("text_embedding.*", "text_embedding.*"),
        ("audio_embedding.*", "speech_embedding.*"),
        ("layers.**", "llm.model.model.layers.**"),
        ("norm.*", "llm.model.model.norm.*"),
        ("audio_head.*", "llm_decoder.*"),
    ],
    # CHECKPOINTS.md 4.2
    "flow": [
        ("input_embedding.*", "input_embedding.*"),
        ("encoder.embed.*.*", "encoder.embed.out.*.*"),
        ("encoder.layers.**", "encoder.encoders.**"),
        ("encoder.after_norm.*", "encoder.after_norm.*"),
        ("length_regulator.**", "length_regulator.**"),
        ("estimator.*.*.resnet.time_proj.*", f"{_UNET}.*.*.0.mlp.1.*"),
        ("estimator.*.*.resnet.*.conv.*", f"{_UNET}.*.*.0.*.block.0.*"),
        ("estimator.*.*.resnet.*.norm.*", f"{_UNET}.*.*.0.*.block.1.*"),
        ("estimator.*.*.resnet.*.*", f"{_UNET}.*.*.0.*.*"),
        ("estimator.*.*.transformers.*.attention_norm.*", f"{_UNET}.*.*.1.*.norm1.*"),
        ("estimator.*.*.transformers.*.attention.to_out.*", f"{_UNET}.*.*.1.*.attn1.to_out.0.*"),
        ("estimator.*.*.transformers.*.attention.*.*", f"{_UNET}.*.*.1.*.attn1.*.*"),
        ("estimator.*.*.transformers.*.feed_forward_norm.*", f"{_UNET}.*.*.1.*.norm3.*"),
        ("estimator.*.*.transformers.*.feed_forward.0.*", f"{_UNET}.*.*.1.*.ff.net.0.proj.*"),
        ("estimator.*.*.transformers.*.feed_forward.2.*", f"{_UNET}.*.*.1.*.ff.net.2.*"),
        ("estimator.*.*.resample.*", f"{_UNET}.*.*.2.conv.*"),
        ("estimator.*.*.conv.*", f"{_UNET}.*.*.2.*"),
        ("estimator.final_block.conv.*", f"{_UNET}.final_block.block.0.*"),
        ("estimator.final_block.norm.*", f"{_UNET}.final_block.block.1.*"),
        ("estimator.time_mlp.*.*", f"{_UNET}.time_mlp.*.*"),
        ("estimator.final_proj.*", f"{_UNET}.final_proj.*"),
    ],
    # CHECKPOINTS.md 4.5 to 4.7
    "codec": [
        ("encoder.downs.**", "encoder.ups.**"),
        ("encoder.norms.**", "encoder.normalize.**"),
        ("encoder.**", "encoder.**"),
        ("quantizer.layers.0.*.embed", "quantizer.quantizer_modules.*.embedding.weight"),
        ("quantizer.layers.1.*.embed", "quantizer.quantizer_modules2.*.embedding.weight"),
        ("decoder.**", "generator.**"),
    ],
}

UNUSED: dict[ModelName, list[str]] = {
    # The EnCodec decoder was trained away from; the Vocos decoder replaces it.
    "tokenizer": ["feature_extractor.encodec.decoder.**"],
    # Tied copies of the text embedding, the second as Qwen's own output head, and a projection that is never applied.
    "lm": ["llm.model.model.embed_tokens.*", "llm.model.lm_head.*", "spk_embed_affine_layer.*"],
    # A projection that is never applied, and a copy of the codec's quantizer.
    "flow": ["encoder_proj.*", "quantizer.**"],
    "codec": [],
}


def to_native(model: ModelName, name: str) -> str:
    """The native name of a published tensor.

    Raises:
        CheckpointError: no row of the model's table matches.
    """
    return _rename(name, ((published, native) for native, published in TABLES[model]), f"published {model}")


def to_published(model: ModelName, name: str) -> str:
    """The published name of a native tensor.

    Raises:
        CheckpointError: no row of the model's table matches; the published layout cannot hold the tensor.
    """
    return _rename(name, TABLES[model], f"native {model}")


def is_unused(model: ModelName, name: str) -> bool:
    """Whether a published tensor has no native counterpart on purpose."""
    return any(_regex(pattern).fullmatch(name) for pattern in UNUSED[model])


def _rename(name: str, rows: Iterable[tuple[str, str]], kind: str) -> str:
    for source, target in rows:
        match = _regex(source).fullmatch(name)
        if match:
            return re.sub(r"\*+", "{}", target).format(*match.groups())
    raise CheckpointError(f"tensor {name!r} is not part of a {kind} model; check that the file holds that model")


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    escaped = re.escape(pattern)
    return re.compile(escaped.replace(r"\*\*", "(.+)").replace(r"\*", r"([^.]+)"))
