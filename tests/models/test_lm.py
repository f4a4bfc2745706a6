import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from golden_fixtures import Golden
from longplay.checkpoint.names import is_unused, to_native
from longplay.checkpoint.published_config import qwen_keys
from longplay.config import Config
from longplay.errors import ConfigError
from longplay.models.lm import IGNORED, LM, LMBatch
from longplay.models.lm_config import LMConfig
from longplay.nn.decoder import Projection
from longplay.nn.linear import Dense
from published_tables import published_table
from tiny_lm import golden_lm, tiny_config, tiny_lm

TOLERANCE = {"atol": 1e-4, "rtol": 0.0}


def tiny_batch() -> LMBatch:
    return LMBatch(
        ids=torch.tensor([[3, 7, 9, 1], [8, 2, 0, 0]]),
        id_lengths=torch.tensor([4, 2]),
        codes=torch.tensor([[5, 6, 7, 8, 9, 1], [2, 2, 4, 0, 0, 0]]),
        code_lengths=torch.tensor([6, 3]),
        starts=torch.tensor([[0.0, 3.0], [10.0, -1.0]]),
        ends=torch.tensor([[3.0, 6.0], [16.0, -1.0]]),
        labels=torch.tensor([[0, 1], [2, 0]]),
        complete=torch.tensor([True, False]),
    )


@pytest.mark.golden
@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize("kind", ["train", "train_drop"])
def test_golden_training(golden: type[Golden], kind: str, segments: int) -> None:
    fixture = golden("llm")
    lm, given = golden_lm(fixture), fixture.inputs
    batch = LMBatch(
        ids=given["b.text_token"],
        id_lengths=given["b.text_token_len"],
        codes=given["b.semantic_token"].long(),
        code_lengths=given["b.semantic_token_len"],
        starts=given[f"b.time_start_seg{segments}"],
        ends=given[f"b.time_end_seg{segments}"],
        labels=given[f"b.chorus_seg{segments}"],
        complete=torch.ones(2, dtype=torch.bool),
    )
    dropped = torch.tensor([False, True]) if kind == "train_drop" else None
    expected = {name: fixture.outputs[f"{kind}.seg{segments}.{name}"] for name in ("lm_input", "logits", "loss", "acc")}
    with torch.no_grad():
        inputs, targets = lm.rows(batch, dropped)
        logits = lm.audio_head(lm(inputs))
        loss, accuracy = lm.loss(batch, dropped)
        torch.testing.assert_close(lm.loss(batch, dropped, packed=True), lm.loss(batch, dropped), **TOLERANCE)
    torch.testing.assert_close(inputs, expected["lm_input"], **TOLERANCE)
    for row in range(2):  # outputs on padding mean nothing, here and there
        length = int((targets[row] != IGNORED).nonzero().max()) + 1
        torch.testing.assert_close(logits[row, :length], expected["logits"][row, :length], **TOLERANCE)
    torch.testing.assert_close(loss, expected["loss"], **TOLERANCE)
    torch.testing.assert_close(accuracy, expected["acc"], **TOLERANCE)


@pytest.mark.golden
def test_golden_prefill(golden: type[Golden]) -> None:
    fixture = golden("llm")
    lm = golden_lm(fixture)
    with torch.no_grad():
        hidden = lm(fixture.outputs["t2m.lm_input"])
        logits = lm.audio_head(hidden)
    torch.testing.assert_close(hidden, fixture.outputs["prefill.hidden_all"], **TOLERANCE)
    torch.testing.assert_close(logits, fixture.outputs["prefill.logits_all"], **TOLERANCE)


@pytest.mark.golden
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden_time_embedding(golden: type[Golden], dtype: torch.dtype) -> None:
    fixture = golden("llm")
    widths = {int(name.split(".")[1]) for name in fixture.outputs if name.startswith("time_embed.")}
    assert len(widths) == 3
    for width in widths:
        lm = LM(tiny_config(dim=width, num_layers=1, num_heads=2, float16_time=True))
        expected = fixture.outputs[f"time_embed.{width}.{str(dtype).removeprefix('torch.')}"].float()
        torch.testing.assert_close(lm.time_embedding(fixture.inputs["time_values"].to(dtype)), expected, rtol=0, atol=0)


def test_time_is_rounded_only_on_request() -> None:
    seconds = torch.tensor([1.2345])
    exact, rounded = tiny_lm().time_embedding(seconds), tiny_lm(float16_time=True).time_embedding(seconds)
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact.half().float(), rounded, rtol=0, atol=0)


@pytest.mark.parametrize(("size", "section"), [("base", "4.3"), ("1.5b", "4.4")])
def test_published_names_and_shapes(size: Any, section: str) -> None:
    with torch.device("meta"):
        lm = LM(LMConfig.published(size))
    expected = {
        to_native("lm", name): shape for name, shape in published_table(section).items() if not is_unused("lm", name)
    }
    assert {name: tuple(tensor.shape) for name, tensor in lm.state_dict().items()} == expected


def test_equals_transformers_qwen2() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import Qwen2Config, Qwen2Model
    lm = tiny_lm(num_heads=4, num_kv_heads=1, rope_theta=500.0)
    config = lm.config
    reference = Qwen2Model(Qwen2Config(**qwen_keys(config) | {"vocab_size": 7})).eval()
    missing, unexpected = reference.load_state_dict(lm.state_dict(), strict=False)
    assert missing == ["embed_tokens.weight"]
    assert all("embedding" in name or "audio_head" in name for name in unexpected)
    inputs = torch.randn(2, 40, config.dim)
    with torch.no_grad():
        expected = reference(inputs_embeds=inputs, attention_mask=torch.ones(2, 40)).last_hidden_state
        torch.testing.assert_close(lm(inputs), expected, atol=1e-5, rtol=1e-5)


def cached(lm: LM, inputs: Tensor, chunks: list[int]) -> Tensor:
    cache, decoder = lm.cache(inputs.shape[0], inputs.shape[1]), lm.inference or lm.decoder()
    with torch.no_grad():
        return torch.cat([decoder(chunk, cache) for chunk in inputs.split(chunks, dim=1)], dim=1)


def test_preparing_for_inference_frees_the_layers_and_changes_nothing() -> None:
    lm = tiny_lm()
    inputs = torch.randn(2, 12, lm.config.dim)
    count = sum(parameter.numel() for parameter in lm.parameters())
    with torch.no_grad():
        whole = lm(inputs)
        lm.prepare()
        prepared = lm.inference
        lm.prepare()  # again is harmless
        assert lm.inference is prepared
        torch.testing.assert_close(cached(lm, inputs, [5, 1, 6]), whole, atol=1e-5, rtol=1e-5)
    assert all(parameter.is_meta for parameter in lm.layers.parameters())
    assert sum(parameter.numel() for parameter in lm.parameters()) == count


def test_projections_by_name_are_used() -> None:
    lm = tiny_lm()
    names = [name for name, _ in lm.linears()]
    assert names == [f"{i}.{part}" for i in (0, 1) for part in ("qkv", "o", "gate_up", "down")] + ["head"]
    projections = {name: Dense(weights) for name, weights in lm.linears()}
    seen: set[str] = set()

    def watched(name: str) -> Projection:
        return lambda x: (seen.add(name), projections[name](x))[1]

    decoder = lm.decoder({name: watched(name) for name in names})
    decoder.head(decoder(torch.randn(1, 3, lm.config.dim), lm.cache(1, 3))[:, -1])
    assert seen == set(names)


@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 7], [4, 1, 1, 6]])
def test_cached_equals_full(chunks: list[int]) -> None:
    lm = tiny_lm()
    inputs = torch.randn(2, 12, lm.config.dim)
    with torch.no_grad():
        torch.testing.assert_close(cached(lm, inputs, chunks), lm(inputs), atol=1e-5, rtol=1e-5)


def test_ragged_rows_do_not_notice_each_other_or_their_padding() -> None:
    lm = tiny_lm()
    rows = [torch.randn(length, lm.config.dim) for length in (9, 3, 6)]
    steps = torch.randn(3, 4, lm.config.dim)
    decoder, cache = lm.decoder(), lm.cache(3, 9 + 4)
    lengths = torch.tensor([9, 3, 6])
    with torch.no_grad():
        padded = torch.full((3, 9, lm.config.dim), 100.0)
        for row, values in enumerate(rows):
            padded[row, : len(values)] = values
        for start in (0, 4, 8):  # in three chunks, the last of which holds only padding of two rows
            chunk = padded[:, start : start + 4]
            decoder(chunk, cache, (lengths - start).clamp(0, chunk.shape[1]))
        together = torch.cat([decoder(step, cache) for step in steps.split(1, dim=1)], dim=1)
        for row, values in enumerate(rows):
            alone = lm(torch.cat([values, steps[row]])[None])[0, -4:]
            torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=1e-5)
    assert cache.lengths.tolist() == [13, 7, 10]


def test_no_state_depends_on_a_later_input() -> None:
    lm = tiny_lm()
    inputs = torch.randn(1, 8, lm.config.dim, requires_grad=True)
    for position in range(8):
        (gradient,) = torch.autograd.grad(lm(inputs)[0, position].sum(), inputs)
        touched = gradient[0].abs().sum(dim=-1) > 0
        assert touched.tolist() == [index <= position for index in range(8)]


def test_layout_of_rows_and_targets() -> None:
    lm, batch = tiny_lm(), tiny_batch()
    inputs, targets = lm.rows(batch, torch.tensor([False, True]))
    sos, task = lm.task_embedding.weight
    times = lm.time_embedding(torch.tensor([0.0, 3.0, 3.0, 6.0]))
    labels, text = lm.structure_embedding.weight[[0, 1]], lm.text_embedding.weight[[3, 7, 9, 1]]
    expected = torch.cat([sos[None], times, labels, text, task[None], lm.audio_embedding(batch.codes[0])])
    assert torch.equal(inputs[0], expected)
    assert targets[0].tolist() == [IGNORED] * 11 + [5, 6, 7, 8, 9, 1, lm.config.eos]
    # one segment, no text, and no eos since the window stops before the piece
    assert targets[1].tolist() == [IGNORED] * 4 + [2, 2, 4] + [IGNORED] * 11
    assert torch.equal(inputs[1, 5:8], lm.audio_embedding(torch.tensor([2, 2, 4])))


def test_loss_of_a_batch_is_the_mean_over_labelled_positions() -> None:
    lm, batch = tiny_lm(), tiny_batch()
    loss, accuracy = lm.loss(batch)
    inputs, targets = lm.rows(batch)
    logits = lm.audio_head(lm(inputs))
    losses = [
        -logits[row, position].log_softmax(-1)[target]
        for row, position in (targets != IGNORED).nonzero().tolist()
        if (target := int(targets[row, position])) >= 0
    ]
    assert len(losses) == 6 + 1 + 3
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    assert 0.0 <= float(accuracy) <= 1.0


def test_text_dropout_follows_its_generator_alone() -> None:
    lm = LM(tiny_config(text_dropout=0.2))
    first, second = (lm.draw_dropped(2000, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert 0.15 < first.float().mean() < 0.25
    assert not torch.equal(first, lm.draw_dropped(2000, torch.Generator().manual_seed(4)))


def test_overfits_one_batch() -> None:
    torch.manual_seed(0)
    lm, batch = LM(tiny_config()), tiny_batch()
    optimizer = torch.optim.AdamW(lm.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss, accuracy = lm.loss(batch)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    assert accuracy.item() == 1.0


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"num_heads": 3}, "num_heads 3"), ({"num_kv_heads": 3}, "num_kv_heads 3"), ({"unlabelled": 5}, "unlabelled 5")],
)
def test_impossible_sizes_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        tiny_config(**changes)
    assert issubclass(LMConfig, Config)
