"""The two-phase tokenizer: codes from magnitudes first, then a decoder for codes that stay."""

from pathlib import Path
from typing import Any

import pytest
import torch

from longplay.checkpoint.system import load_system
from longplay.errors import CheckpointError, ConfigError, TrainingError
from longplay.models.tokenizer import Tokenizer
from longplay.nn.istft import stft
from longplay.train.audio_stage import AudioStage, AudioStageConfig
from longplay.train.build import load_stage_config
from longplay.train.checkpoint_file import holds_start
from longplay.train.log import read_metrics
from longplay.train.loop import train
from longplay.train.losses import SpectrumConfig, SpectrumLoss

SPECTRAL = {"kind": "spectral", "n_fft": 64, "dim": 16, "intermediate_dim": 24, "num_layers": 1}
CODEC = {"sample_rate": 8000, "hop_length": 32, "quantizer": {"codebook": {"size": 16, "dim": 4}}}


def step(stage: AudioStage, count: int, rate: float = 3e-3) -> list[float]:
    optimizer = torch.optim.Adam([p for p in stage.model.parameters() if p.requires_grad], rate)
    batch = stage.batch(0, slice(None))
    values = []
    for index in range(count):
        stage.model.train()
        losses = stage.losses(100 + index, batch)
        optimizer.zero_grad()
        losses.terms["model"].backward()
        optimizer.step()
        values.append(float(losses.terms["model"].detach()))
    return values


def test_magnitudes_are_learnt_through_the_codes(audio_stage: Any) -> None:
    stage = audio_stage(spectrum={})
    values = step(stage, 60)
    assert values[-1] < 0.6 * values[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stage.model.encoder.parameters())
    with torch.inference_mode():
        found = stage.evaluate(stage.model.eval())
    assert {"spectrum", "steadiness", "usage", "repeats"} <= found.keys()


def test_the_right_magnitudes_and_latents_that_stay_cost_nothing() -> None:
    loss = SpectrumLoss(SpectrumConfig(), 64, 32, 8000)
    wav = torch.randn(2, 1, 640, generator=torch.Generator().manual_seed(0))
    target = stft(wav[:, 0], loss.window, 32).abs()
    still, moving = torch.randn(2, 4, 1).expand(2, 4, 20), torch.randn(2, 4, 20)
    right = loss(target, still, wav)
    assert float(right["spectrum"]) == 0
    assert float(right["steadiness"]) == 0
    wrong = loss(2 * target, moving, wav)
    assert wrong["spectrum"] > 0
    assert wrong["steadiness"] > 0


def test_what_lasts_counts_more_than_what_passes() -> None:
    loss = SpectrumLoss(SpectrumConfig(sustained=1), 64, 32, 8000)
    wav = torch.randn(1, 1, 32 * 750, generator=torch.Generator().manual_seed(0))
    target, still = stft(wav[:, 0], loss.window, 32).abs(), torch.zeros(1, 4, 750)
    louder = 1 + 0.2 * (torch.arange(750) % 2)  # by turns, so that it is louder for good as well
    flickers = torch.where(torch.arange(750) % 2 == 0, 1.2, 1 / 1.2)
    lasting, passing = (loss(target * change, still, wav) for change in (louder, flickers))
    assert lasting["sustained"] > 20 * passing["sustained"]
    assert passing["spectrum"] > lasting["spectrum"]


def test_what_is_far_below_the_loudest_partial_hardly_counts() -> None:
    loss = SpectrumLoss(SpectrumConfig(), 64, 32, 8000)
    time = torch.arange(640) / 8000
    wav = torch.sin(2 * torch.pi * 500 * time).view(1, 1, -1)
    target = stft(wav[:, 0], loss.window, 32).abs()
    faint = target < 1e-3 * target.max()
    assert faint.any()
    still = torch.zeros(1, 4, 20)
    below = loss(torch.where(faint, target * 2, target), still, wav)["spectrum"]
    above = loss(torch.where(faint, target, target * 2), still, wav)["spectrum"]
    assert above > 50 * below


def test_a_frozen_encoder_keeps_every_code_and_the_decoder_learns(audio_stage: Any, tmp_path: Path) -> None:
    first = audio_stage(spectrum={})
    train(first, first.config.loop, tmp_path / "first")
    stage = audio_stage(init=tmp_path / "first" / "model", freeze_encoder=True, quantize_from_step=0)
    wav = stage.batch(0, slice(None))["wav"]
    codes, weights = stage.model.encode(wav), [p.clone() for p in stage.model.decoder.parameters()]
    values = step(stage, 30)
    assert values[-1] < values[0]
    assert torch.equal(stage.model.encode(wav), codes)
    assert all(not torch.equal(a, b) for a, b in zip(weights, stage.model.decoder.parameters(), strict=True))
    run = tmp_path / "second"
    train(stage, stage.config.loop, run)
    assert torch.equal(stage.model.encode(wav), codes)


def test_rows_that_pass_the_codebook_by_teach_it_all_the_same(audio_stage: Any) -> None:
    every, half = (audio_stage(spectrum={}, unquantized_share=share, quantize_from_step=0) for share in (0.0, 0.5))
    losses = []
    for stage in (every, half):
        torch.manual_seed(0)  # the codebook starts from vectors of the batch
        losses.append(stage.losses(0, stage.batch(0, slice(None))).metrics)
    assert losses[0]["quantizer"] == losses[1]["quantizer"], "codebooks learn from all rows"
    assert losses[0]["spectrum"] != losses[1]["spectrum"]


def test_the_same_rows_pass_the_codebook_by_however_the_batch_is_divided(audio_stage: Any) -> None:
    stage = audio_stage(batch_size=6, unquantized_share=0.5)
    for size in (6, 3, 2, 1):
        parts = [stage.batch(0, slice(first, first + size)) for first in range(0, 6, size)]
        free = [first * size + row for first, part in enumerate(parts) for row in part["unquantized"].tolist()]
        assert free == [0, 1, 2]


def test_init_takes_what_fits(audio_stage: Any, tmp_path: Path) -> None:
    first = audio_stage()
    train(first, first.config.loop, tmp_path / "run")
    model = {**first.config.tokenizer.dump(), "decoder": {**SPECTRAL, "n_fft": 128}}
    other = audio_stage(init=tmp_path / "run" / "model", tokenizer=model)
    assert isinstance(other.model, Tokenizer)
    assert other.model.decoder.head.out.out_features == 65
    assert not torch.equal(other.model.encoder.out.weight, audio_stage(tokenizer=model).model.encoder.out.weight)


def test_the_codebook_of_a_release_goes_on_from_its_vectors(audio_stage: Any, tmp_path: Path) -> None:
    """A release holds no moving sums; training starts none anew, which would give every code another meaning."""
    first = audio_stage(spectrum={}, quantize_from_step=0)
    train(first, first.config.loop, tmp_path / "run")
    book = {**first.config.tokenizer.dump()["codebook"], "ema": False}
    released = audio_stage(spectrum={}, tokenizer={**first.config.tokenizer.dump(), "codebook": book})
    released.model.load_state_dict(
        {k: v for k, v in first.model.state_dict().items() if k in released.model.state_dict()}
    )
    released.export(released.model, tmp_path / "release")
    stage = audio_stage(spectrum={}, quantize_from_step=0, init=tmp_path / "release")
    wav = stage.batch(0, slice(None))["wav"]
    assert torch.equal(stage.model.encode(wav), first.model.encode(wav))
    stage.model.train()
    stage.losses(0, stage.batch(0, slice(None)))
    moved = (stage.model.codebook.embed - first.model.codebook.embed).norm(dim=1)
    assert moved.max() > 0, "it follows the data"
    assert moved.median() < 0.01 * first.model.codebook.embed.std(), "from where it was"


def test_init_of_an_encoder_that_sees_more_is_refused(audio_stage: Any, tmp_path: Path) -> None:
    first = audio_stage()
    more = audio_stage(
        tokenizer={**first.config.tokenizer.dump(), "encoder": {**SPECTRAL, "shortcut": True}, "decoder": SPECTRAL}
    )
    more.export(more.model, tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"encoder.shortcut.bias of its tokenizer does not fit this config"):
        audio_stage(init=tmp_path / "model")


def test_a_run_from_components_resumes_as_if_uninterrupted(
    audio_stage: Any, files: list[tuple[Path, float]], tmp_path: Path
) -> None:
    tokenizer = {
        **audio_stage().config.tokenizer.dump(),
        "encoder": {**SPECTRAL, "phase": False, "shortcut": True},
        "decoder": {**SPECTRAL, "shortcut": True},
    }
    whole = audio_stage(tokenizer=tokenizer, spectrum={})
    fixed = whole.model.encoder.shortcut.weight.clone()
    train(whole, whole.config.loop, tmp_path / "whole")
    first = audio_stage(tokenizer=tokenizer, spectrum={})
    assert train(first, first.config.loop, tmp_path / "parts", budget_seconds=0.0) == 1
    second = AudioStage(first.config, files, files, begins=False)
    assert not torch.allclose(second.model.encoder.shortcut.weight, fixed), "the checkpoint holds it"
    train(second, second.config.loop, tmp_path / "parts")
    assert torch.equal(whole.model.encoder.shortcut.weight, fixed), "it does not learn"
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    made, whole_made = (load_system(tmp_path / run / "model").tokenizer for run in ("parts", "whole"))
    assert made is not None
    assert whole_made is not None
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), whole_made.parameters(), strict=True))


def test_an_older_checkpoint_of_components_goes_on_where_they_are_the_same(audio_stage: Any, tmp_path: Path) -> None:
    """It holds their sums alone, which differ in the last digits with the number of threads."""
    tokenizer = {
        **audio_stage().config.tokenizer.dump(),
        "encoder": {**SPECTRAL, "phase": False, "shortcut": True},
        "decoder": {**SPECTRAL, "shortcut": True},
    }
    first = audio_stage(tokenizer=tokenizer, spectrum={})
    train(first, first.config.loop, tmp_path, budget_seconds=0.0)
    assert holds_start(tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    shortcut = [name for name in state["model"] if name.startswith("encoder.shortcut.")]
    state["resting"] = {name: float(state["model"][name].double().sum()) * (1 + 1e-12) for name in shortcut}
    for part in ("model", "average"):
        state[part] = {name: value for name, value in state[part].items() if name not in shortcut}
    torch.save(state, tmp_path / "checkpoint.pt")
    assert not holds_start(tmp_path)
    other = audio_stage(tokenizer=tokenizer, spectrum={})
    with torch.no_grad():
        other.model.encoder.shortcut.weight[0, 0] += 1e-3
    with pytest.raises(TrainingError, match="started from are others now, encoder.shortcut.weight for one"):
        train(other, other.config.loop, tmp_path)
    same = audio_stage(tokenizer=tokenizer, spectrum={})
    assert train(same, same.config.loop, tmp_path) == 6
    assert holds_start(tmp_path)


def test_init_of_another_size_is_refused(audio_stage: Any, tmp_path: Path) -> None:
    first = audio_stage()
    train(first, first.config.loop, tmp_path / "run")
    parts = {name: {**SPECTRAL, "n_fft": 32, "dim": 20, "kernel_size": 3} for name in ("encoder", "decoder")}
    with pytest.raises(CheckpointError, match="does not fit this config; only the decoder may differ"):
        audio_stage(
            init=tmp_path / "run" / "model", tokenizer={**first.config.tokenizer.dump(), "latent_dim": 6, **parts}
        )


def test_a_codec_learns_magnitudes_through_its_codes_too(audio_stage: Any) -> None:
    stage = audio_stage(stage="codec", codec={**CODEC, "encoder": SPECTRAL, "decoder": SPECTRAL}, spectrum={})
    values = step(stage, 60)
    assert values[-1] < 0.6 * values[0]


def residual(stage: AudioStage) -> dict[str, Any]:
    assert stage.config.tokenizer is not None
    return stage.config.tokenizer.dump() | {"num_codebooks": 3}


def test_several_codebooks_are_trained_resumed_and_counted_one_by_one(audio_stage: Any, tmp_path: Path) -> None:
    config = residual(audio_stage())

    def build() -> AudioStage:
        return audio_stage(tokenizer=config, spectrum={})

    whole = build()
    train(whole, whole.config.loop, tmp_path / "whole")
    assert train(build(), whole.config.loop, tmp_path / "parts", budget_seconds=0.0) == 1
    parts = build()
    train(parts, parts.config.loop, tmp_path / "parts")
    assert all(torch.equal(value, parts.model.state_dict()[name]) for name, value in whole.model.state_dict().items())

    last = read_metrics(tmp_path / "whole")[-1]
    books = [last[f"held_out_usage_book_{number}"] for number in (1, 2, 3)]
    assert 0 < min(books) < max(books) <= 1
    assert last["held_out_usage"] == pytest.approx(sum(books) / 3, rel=1e-4)
    for number, used in enumerate(books, 1):
        assert last[f"held_out_dead_book_{number}"] == pytest.approx(64 * (1 - used), abs=0.1)
        assert 1 <= last[f"held_out_perplexity_book_{number}"] <= 64 * used
    assert (tmp_path / "whole/codes.png").stat().st_size > 0
    system = load_system(tmp_path / "whole/model")
    assert system.tokenizer is not None
    assert system.tokenizer.encode(torch.randn(1, 1, 640)).shape == (1, 3, 20)


def test_more_codebooks_come_closer(audio_stage: Any) -> None:
    single = audio_stage(spectrum={})
    both = [single, audio_stage(tokenizer=residual(single), spectrum={})]
    errors = []
    for stage in both:
        step(stage, 60)
        stage.model.eval()
        with torch.inference_mode():
            latents, quantized = stage.model.spectrum(stage.batch(0, slice(None))["wav"])[1:]
        errors.append(float((latents - quantized.values).square().mean() / latents.var()))
    assert errors[1] < 0.7 * errors[0]


def test_one_codebook_does_not_become_several(audio_stage: Any, tmp_path: Path) -> None:
    first = audio_stage()
    first.export(first.model, tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"codebook\.layers\.0\.0\..* does not fit this config"):
        audio_stage(init=tmp_path / "model", tokenizer=residual(first))


def test_convolutions_have_no_spectrum_phase(audio_stage: Any) -> None:
    convolutions = {
        "kind": "hifigan",
        "channels": 8,
        "strides": [8, 4],
        "kernel_sizes": [16, 8],
        "resblock_kernel_sizes": [3],
        "resblock_dilations": [[1]],
    }
    with pytest.raises(ConfigError, match="only a spectral decoder"):
        audio_stage(stage="codec", codec={**CODEC, "encoder": SPECTRAL, "decoder": convolutions}, spectrum={})


@pytest.mark.parametrize(
    ("decoder", "spectrum", "remedy"),
    [
        ({"shortcut": True}, None, "spectrum; set it, or init"),
        ({"shortcut": False}, {}, "shortcut: true, n_fft: 64, or set init"),
        ({"shortcut": True, "n_fft": 128}, {}, "shortcut: true, n_fft: 64, or set init"),
    ],
)
def test_components_that_no_run_would_compute_are_refused(
    audio_stage: Any, tmp_path: Path, decoder: dict[str, Any], spectrum: dict[str, Any] | None, remedy: str
) -> None:
    codec = {**CODEC, "encoder": {"kind": "components", "n_fft": 64}}
    good = audio_stage(stage="codec", codec={**codec, "decoder": {**SPECTRAL, "shortcut": True}}, spectrum={})
    good.export(good.model, tmp_path / "model")
    codec["decoder"] = {**SPECTRAL, **decoder}
    with pytest.raises(ConfigError, match=remedy):
        audio_stage(stage="codec", codec=codec, spectrum=spectrum)
    later = audio_stage(stage="codec", codec=codec, init=tmp_path / "model")
    assert torch.equal(later.model.encoder.out.weight, good.model.encoder.out.weight)


@pytest.mark.parametrize("kind", ["codec", "tokenizer"])
def test_the_gan_presets_go_on_from_the_bundled_decoder(
    kind: str, files: list[tuple[Path, float]], tmp_path: Path
) -> None:
    small = [
        "batch_size=2", "crop_seconds=0.2", "held_out_crops=1", "held_out_seconds=0.5", "counted_crops=2", "loss.n_ffts=[512]",
        "adversarial.discriminators.n_ffts=[512]", "adversarial.discriminators.channels=2",
        "loop.steps=3", "loop.log_every=1", "loop.trackers=[]", "loop.device=cpu",
    ]  # fmt: skip
    config = load_stage_config(f"nano-{kind}-gan", small)
    assert isinstance(config, AudioStageConfig)
    stage = AudioStage(config, files, files)
    before = {name: value.clone() for name, value in stage.model.state_dict().items()}
    assert train(stage, config.loop, tmp_path / "run") == 3
    moved = {
        name.split(".")[0] for name, value in stage.model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"decoder"}
    last = [record for record in read_metrics(tmp_path / "run") if "mel" in record][-1]
    assert {f"norm_{name}" for name in config.balance.shares} <= last.keys()  # type: ignore[union-attr]
    assert {"discriminator", "adversarial", "features"} <= last.keys()
