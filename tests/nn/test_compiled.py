import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from longplay.engine.quantize import QuantizedProjection
from longplay.errors import LongplayError
from longplay.models.lm import LM
from longplay.models.lm_config import LMConfig
from longplay.nn import compiled, native, processor
from longplay.nn.decoder import Projection
from longplay.nn.graphed import step
from longplay.nn.int4 import Int4Weights, fits_int4, round_to_int4
from longplay.nn.linear import Weights
from longplay.nn.quantized import Int8Weights, RoundedWeights

pytestmark = pytest.mark.skipif(not processor.can_compile(), reason="needs numba and an x86 processor with AVX2")
CONFIG = LMConfig(
    text_vocab_size=20,
    codebook_size=61,
    code_rate=75,
    num_labels=5,
    dim=96,
    num_layers=2,
    num_heads=6,
    num_kv_heads=2,
    intermediate_dim=200,
)
CACHES = (torch.float32, torch.bfloat16, torch.int8)


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    """Those of the tests below, compiled side by side: one takes half a minute on a slow machine."""
    sizes = [(3, 1, kind) for kind in (1, 2, 3)] + [(1, 1, 3), (7, 4, 3), (3, 6, 3), (3, 8, 3)]
    native.get_ready(("project",), *(("step", *each) for each in sizes))


@pytest.fixture(scope="module")
def lm() -> LM:
    torch.manual_seed(0)
    model = LM(CONFIG).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.mul_(4.0)
            elif "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def form(lm: LM, name: str) -> dict[str, RoundedWeights | Weights]:
    if name == "mixed":
        names = ("int8", "bfloat16", "float32", "int4", "apart")
        forms = [form(lm, each) for each in names]
        return {key: forms[place % len(forms)][key] for place, key in enumerate(forms[0])}
    if name in ("float32", "bfloat16"):
        return {key: weights.to(getattr(torch, name)) for key, weights in lm.linears()}
    apart = torch.tensor([0, 7, 50] if name in ("apart", "int4") else [], dtype=torch.long)
    narrow = {key for key, weights in lm.linears() if name == "int4" and fits_int4(weights)}
    return {
        key: round_to_int4(weights, apart) if key in narrow else Int8Weights.of(weights, apart)
        for key, weights in lm.linears()
    }


def plain(weights: Mapping[str, RoundedWeights | Weights]) -> dict[str, Projection]:
    return {key: QuantizedProjection(each, 0.0).projection() for key, each in weights.items()}


def run(
    lm: LM, weights: Mapping[str, RoundedWeights | Weights] | None, rows: int, cache: torch.dtype, seed: int = 0
) -> Tensor:
    """Logits of a prefill and of steps after it; the last row idles every other step."""
    generator = torch.Generator().manual_seed(seed)
    decoder = lm.decoder() if weights is None else lm.compiled_decoder(weights)
    held, made = lm.cache(rows, 40, cache), []
    with torch.inference_mode():
        made.append(decoder.head(decoder(torch.randn(rows, 5, CONFIG.dim, generator=generator), held)[:, -1]))
        for number in range(24):
            counts = torch.ones(rows, dtype=torch.long)
            counts[-1] = number % 2 if rows > 2 else 1
            made.append(step(decoder, torch.randn(rows, 1, CONFIG.dim, generator=generator), held, counts))
    return torch.stack(made)


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("rows", [1, 2, 3, 6])
def test_float32_weights_give_the_logits_of_the_plain_decoder(lm: LM, rows: int, cache: torch.dtype) -> None:
    exact = run(lm, None, rows, cache)
    bound = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.int8: 5e-3}[
        cache
    ]  # torch attends in the cache's precision
    assert apart(run(lm, form(lm, "float32"), rows, cache), exact) < bound


@pytest.mark.parametrize(
    ("heads", "kv_heads", "width", "held"),
    [(2, 2, 16, 300), (7, 1, 64, 256), (6, 2, 96, 700), (3, 1, 128, 513)],
)
def test_attention_to_a_long_cache_in_int8_is_that_of_its_numbers(
    heads: int, kv_heads: int, width: int, held: int
) -> None:
    """Over whole tiles and parts of one, with values of very different sizes, and one key that draws most of a query."""
    config = CONFIG.model_copy(
        update={"dim": heads * width, "num_heads": heads, "num_kv_heads": kv_heads, "num_layers": 1}
    )
    torch.manual_seed(0)
    model = LM(config).eval()
    for parameter in model.layers.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    logits, kernel = [], model.compiled_decoder(form(model, "float32"))
    for decoder, behind in ((model.decoder(), 0), (kernel, 0), (kernel, 1)):
        generator = torch.Generator().manual_seed(1)
        cache = model.cache(2, held + 3, torch.int8)
        assert cache.scales is not None
        cache.data[:] = torch.randint(-127, 128, cache.data.shape, generator=generator)
        cache.scales[:] = 0.005 * torch.randn(cache.scales.shape, generator=generator).exp()
        cache.scales[0, :, :kv_heads, held // 2] *= 4
        cache.scales[:, :, :, held + 1 :] = behind  # of another piece
        cache.lengths[:] = torch.tensor([held, held - 9])
        cache.longest = held
        with torch.inference_mode():
            inputs = torch.randn(2, 1, config.dim, generator=generator)
            logits.append(step(decoder, inputs, cache))
    nothing = model.cache(2, 3, torch.int8)
    with torch.inference_mode():
        alone = step(model.decoder(), inputs, nothing)
    assert apart(alone, logits[0]) > 0.1  # the cache counts
    assert apart(logits[1], logits[0]) < 0.02
    assert torch.equal(logits[1], logits[2])


@pytest.mark.parametrize("name", ["int8", "apart", "int4", "bfloat16", "mixed"])
def test_rounded_weights_are_as_close_as_torch_computes_them(lm: LM, name: str) -> None:
    weights = form(lm, name)
    generator = torch.Generator().manual_seed(1)
    exact, theirs, ours = lm.decoder(), lm.decoder(plain(weights)), lm.compiled_decoder(weights)
    caches = [lm.cache(2, 30) for _ in range(3)]
    made: list[list[Tensor]] = [[], [], []]
    with torch.inference_mode():
        for _ in range(20):
            inputs = torch.randn(2, 1, CONFIG.dim, generator=generator)
            for logits, decoder, cache in zip(made, (exact, theirs, ours), caches, strict=True):
                logits.append(step(decoder, inputs, cache))
    right, torchs, own = (torch.stack(logits) for logits in made)
    assert 0 < apart(own, right) < 1.1 * apart(torchs, right)


@pytest.mark.parametrize("name", ["apart", "int4"])
def test_a_row_does_not_notice_its_neighbours_nor_the_number_of_threads(
    lm: LM, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    weights = form(lm, name)
    decoder = lm.compiled_decoder(weights)
    rows = torch.randn(6, 12, CONFIG.dim, generator=torch.Generator().manual_seed(2))
    before = torch.get_num_threads()

    def logits(inputs: Tensor) -> Tensor:
        cache, made = lm.cache(len(inputs), 12), []
        with torch.inference_mode():
            for position in inputs.unbind(dim=1):
                made.append(step(decoder, position[:, None], cache))
        return torch.stack(made)

    together = logits(rows)
    assert torch.equal(together[:, 2:3], logits(rows[2:3]))
    assert torch.equal(together[:, 3:5], logits(rows[3:5]))
    monkeypatch.setattr(compiled, "_BYTES_PER_THREAD", 1)
    decoder = lm.compiled_decoder(weights)
    try:
        torch.set_num_threads(3)
        assert torch.equal(together, logits(rows))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7])
def test_the_largest_bytes_are_multiplied_exactly(lm: LM, rows: int) -> None:
    """Nothing overflows where products are added in 16 bits."""
    weights, generator = form(lm, "int8"), torch.Generator().manual_seed(3)
    outputs, inputs = weights["head"].values.shape  # type: ignore[union-attr]
    values = torch.full((outputs, inputs), 127) * torch.randint(2, (outputs, 1), generator=generator).mul(2).sub(1)
    values[1::3] = torch.randint(-127, 128, values[1::3].shape, generator=generator)
    none = torch.ones(outputs), None, torch.tensor([], dtype=torch.long), torch.zeros(0, outputs)
    whole = Int8Weights(*none, values.to(torch.int8))
    x = torch.randint(2, (rows, inputs), generator=generator).mul(2.0).sub(1.0)
    x[0], x[-1] = 1.0, -1.0  # each number becomes 127 or -127
    made = compiled.CompiledWeights({**weights, "head": whole}).projections["head"](x)
    torch.testing.assert_close(made, x @ values.float().t(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_the_largest_nibbles_are_multiplied_exactly(lm: LM, rows: int) -> None:
    """Nothing overflows where products are added in 16 bits."""
    generator, outputs, inputs = torch.Generator().manual_seed(3), 24, 320
    nibbles = torch.randint(256, (outputs, inputs // 2), generator=generator, dtype=torch.uint8)
    nibbles[::3], nibbles[1::3] = 0, 255  # the lowest level and the highest
    groups = torch.randint(64, (outputs, inputs // 32), generator=generator, dtype=torch.uint8)
    groups[::2] = 63
    none = torch.ones(outputs), None, torch.tensor([], dtype=torch.long), torch.zeros(0, outputs)
    whole = Int4Weights(*none, nibbles, groups, inputs)
    x = torch.randint(2, (rows, inputs), generator=generator).mul(2.0).sub(1.0)
    x[0], x[-1] = 1.0, -1.0
    made = compiled.CompiledWeights({**form(lm, "int8"), "head": whole}).projections["head"](x)
    torch.testing.assert_close(made.double(), x.double() @ whole.dequantize().double().t(), rtol=1e-6, atol=0)


def test_what_does_not_fit_the_kernels_of_int4_is_refused(lm: LM) -> None:
    none, large = torch.zeros(0, dtype=torch.long), Weights(torch.ones(8, 8192))
    for weights in (Weights(torch.randn(6, 64)), large):
        with pytest.raises(ValueError, match="cannot be computed in int4"):
            compiled.CompiledWeights({**form(lm, "int8"), "head": round_to_int4(weights, none)})


def test_a_cache_is_in_bfloat16_unless_another_is_asked_for(lm: LM) -> None:
    model = LM(CONFIG).eval()
    assert model.cache(1, 2).data.dtype == torch.float32
    model.prepare(model.compiled_decoder(form(lm, "int8")))
    assert model.cache(1, 2).data.dtype == torch.bfloat16
    assert model.cache(1, 2, torch.int8).data.dtype == torch.int8


def test_what_a_step_keeps_with_a_cache_is_its_own(lm: LM) -> None:
    decoders = [lm.compiled_decoder(form(lm, name)) for name in ("int8", "float32")]
    inputs, shared = torch.randn(2, 1, CONFIG.dim), lm.cache(2, 3)
    with torch.inference_mode():
        for decoder in decoders:
            shared.clear()
            assert torch.equal(step(decoder, inputs, shared), step(decoder, inputs, lm.cache(2, 3)))


def test_nothing_is_written_beyond_the_cache(lm: LM) -> None:
    decoder, cache = lm.compiled_decoder(form(lm, "int8")), lm.cache(2, 3)
    with torch.inference_mode():
        for _ in range(3):
            step(decoder, torch.zeros(2, 1, CONFIG.dim), cache)
        with pytest.raises(ValueError, match="2 inputs at position 3 do not fit into a cache of 2 rows of 3 positions"):
            step(decoder, torch.zeros(2, 1, CONFIG.dim), cache)
        with pytest.raises(ValueError, match="1 inputs at position 0 do not fit into a cache of 2 rows"):
            step(decoder, torch.zeros(1, 1, CONFIG.dim), lm.cache(2, 3))


def test_a_prefix_is_read_by_the_products_of_the_steps(lm: LM) -> None:
    weights = form(lm, "int8")
    decoder, inputs = lm.compiled_decoder(weights), torch.randn(2, 9, CONFIG.dim)
    with torch.inference_mode():
        at_once, one_by_one = lm.cache(2, 9), lm.cache(2, 9)
        whole = decoder.head(decoder(inputs, at_once)[:, -1])
        for position in inputs.unbind(dim=1):
            last = step(decoder, position[:, None], one_by_one)
    assert apart(whole, last) < 1e-3  # sums of attention are in another order


LOGITS = """
import torch
from longplay.models.lm import LM
from longplay.models.lm_config import LMConfig
from longplay.nn.graphed import step
from longplay.nn.int4 import round_to_int4
from longplay.nn.quantized import Int8Weights
torch.manual_seed(0)
lm = LM(LMConfig(text_vocab_size=9, codebook_size=30, code_rate=75, num_labels=5, dim=64, num_layers=2, num_heads=4,
    num_kv_heads=2, intermediate_dim=96))
weights = {k: (round_to_int4 if k.startswith("1") else Int8Weights.of)(w, torch.tensor([3])) for k, w in lm.linears()}
decoder, cache = lm.compiled_decoder(weights), lm.cache(2, 20, torch.bfloat16)
with torch.inference_mode():
    print(decoder(torch.randn(2, 9, 64), cache).double().sum().item().hex())
    print(sum(step(decoder, torch.randn(2, 1, 64), cache).double().sum().item() for _ in range(9)).hex())
    rounded = lm.cache(2, 700, torch.int8)
    decoder(torch.randn(2, 650, 64), rounded)
    print(sum(step(decoder, torch.randn(2, 1, 64), rounded).double().sum().item() for _ in range(9)).hex())
"""


def test_bits_depend_neither_on_the_registers_nor_on_where_the_kernels_come_from(tmp_path: Path) -> None:
    """All instructions that this processor has, kernels just compiled, and kernels from disk."""
    said = []
    for level in (*processor.levels(), ""):
        environment = {**os.environ, "LONGPLAY_PROCESSOR": level, "LONGPLAY_CACHE": str(tmp_path)}
        command = [sys.executable, "-c", LOGITS]
        said.append(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
    assert len(list((tmp_path / "kernels").glob("*.bin"))) == 3 * len(processor.levels())
    assert len(said) >= 2
    assert all(each == said[0] for each in said)
    assert len(said[0].split()) == 3


def test_kernels_that_cannot_be_compiled_or_kept_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGPLAY_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").touch()  # where a folder should be: code is used all the same
    for known in (native._loaded, native._code):
        known.cache_clear()
    try:
        assert native.kernel("project")
        with pytest.raises(
            LongplayError,
            match="kernel unknown cannot be compiled with numba .KeyError: 'unknown'.; reinstall numba",
        ):
            native.kernel("unknown")
    finally:
        for known in (native._loaded, native._code):
            known.cache_clear()
