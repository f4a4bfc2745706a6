"""Takes of one prompt, of which the better ones are to become likelier."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from longplay.errors import ConfigError, TrainingError
from longplay.evaluate.takes import MEASURES, SCHEMA
from longplay.models.lm import LM, LMBatch
from longplay.train.lm_stage import LMStage, LMStageConfig
from longplay.train.parallel import Parallel
from longplay.train.preference import PreferenceConfig, read_pairs
from longplay.train.update import Updater
from taught import check_resumes_exactly

FRAMES = 20


def write_takes(folder: Path, groups: int = 12, codes: tuple[int, int] = (3, 7)) -> Path:
    """Of each prompt one take that is met and mostly the first of `codes`, and one that is not and mostly the second."""
    rng = np.random.default_rng(0)
    rows = []
    for group in range(groups):
        for number, code in enumerate(codes):
            tokens = np.where(rng.random(FRAMES) < 0.7, code, rng.integers(0, 16, FRAMES))
            measured = dict.fromkeys(MEASURES, None) | {"tempo_met": float(number == 0), "likeness": 0.1 * group}
            about = {"utt": f"{group}/{number}", "group": group, "text": "slow piano"}
            rows.append(
                about | measured | {"split": "valid" if group < 3 else "train", "semantic_token": [tokens.tolist()]}
            )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "00000.parquet")
    return folder


@pytest.fixture
def preferring(lm_stage: Any, tmp_path: Path) -> Any:
    takes = write_takes(tmp_path / "takes")

    def build(**changes: Any) -> LMStage:
        plain = lm_stage()
        data = plain.config.model_dump() | {
            "init": tmp_path,
            "text": "init",
            "preference": {"takes": takes, "beta": 0.5},
        }
        config = LMStageConfig.parse(data | changes)
        torch.manual_seed(1)
        reference = LM(config.lm)
        tracks = plain.windows.tracks
        stage = LMStage(config, plain.tokenizer, plain.text, tracks, tracks, reference=reference)
        stage.model.load_state_dict(reference.state_dict())
        return stage

    return build


def test_the_better_of_two_takes_becomes_likelier(preferring: Any) -> None:
    stage = preferring()
    with torch.inference_mode():
        before = stage.evaluate(stage.model)
    assert before["preference"] == pytest.approx(np.log(2), abs=1e-4)
    config = stage.config.loop.model_copy(update={"steps": 1000, "warmup_steps": 0})
    updater = Updater(stage, config, Parallel(config, Path("unused")))
    reference = {name: value.clone() for name, value in stage.preference.reference.state_dict().items()}
    for step in range(60):
        metrics = updater.update(step)
    assert {"preference", "preferred", "better", "worse", "loss"} <= metrics.keys()
    stage.model.eval()
    with torch.inference_mode():
        after = stage.evaluate(stage.model)
    assert after["preferred"] == 1.0
    assert after["preference"] < 0.5 * before["preference"]
    assert after["better"] > after["worse"]
    assert after["loss"] < before["loss"]  # music goes on being learnt
    for name, value in stage.preference.reference.state_dict().items():
        assert torch.equal(value, reference[name]), name


def test_resumed_equals_uninterrupted(preferring: Any, tmp_path: Path) -> None:
    check_resumes_exactly(preferring, tmp_path)


def test_rows_of_a_batch_bring_their_own_pairs(preferring: Any) -> None:
    stage = preferring()
    whole, half = stage.batch(5, slice(0, 4)), stage.batch(5, slice(2, 4))
    assert len(whole["pair_codes"]) == 8
    assert torch.equal(whole["pair_codes"][4:], half["pair_codes"])
    better, worse = whole["pair_codes"][0::2], whole["pair_codes"][1::2]
    assert (better == 3).float().mean() > 0.5
    assert (worse == 7).float().mean() > 0.5


def test_without_held_out_takes_it_learns_unmeasured(preferring: Any, tmp_path: Path, caplog: Any) -> None:
    few = tmp_path / "few"
    rows = pq.read_table(tmp_path / "takes/00000.parquet", filters=[("split", "=", "train")])
    few.mkdir()
    pq.write_table(rows, few / "00000.parquet")
    stage = preferring(preference={"takes": few})
    assert "no pair of takes is held out to measure with" in caplog.text
    with torch.inference_mode():
        assert "preferred" not in stage.evaluate(stage.model)
    assert "pair_codes" in stage.batch(0, slice(None))


def test_log_likelihood_is_the_loss_of_whole_rows(preferring: Any) -> None:
    stage = preferring()
    fields = {name[5:]: value for name, value in stage.batch(0, slice(0, 4)).items() if name.startswith("pair_")}
    batch = LMBatch(**fields)
    each = stage.model.log_likelihood(batch)
    assert each.shape == (8,)
    assert -each.sum().item() / batch.code_lengths.sum().item() == pytest.approx(
        stage.model.loss(batch).loss.item(), rel=1e-5
    )


def test_pairs_that_cannot_be_formed_are_named(tmp_path: Path) -> None:
    takes = write_takes(tmp_path / "takes")
    assert len(read_pairs(PreferenceConfig(takes=takes), "train").groups) == 9
    with pytest.raises(TrainingError, match="takes of 9 prompts: no two of a prompt differ by 2"):
        read_pairs(PreferenceConfig(takes=takes, least=2.0), "train")
    with pytest.raises(ConfigError, match="takes have no loudness; see preference.worth"):
        read_pairs(PreferenceConfig(takes=takes, worth={"loudness": 1.0}), "train")
    with pytest.raises(TrainingError, match="nowhere: holds no takes; make them with `longplay train takes`"):
        read_pairs(PreferenceConfig(takes=tmp_path / "nowhere"), "train")
    (takes / "00001.parquet").write_text("not parquet")
    with pytest.raises(TrainingError, match="00001.parquet: is no shard of takes"):
        read_pairs(PreferenceConfig(takes=takes), "train")


def test_a_preference_needs_the_model_to_start_from(preferring: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="preference compares with the model to start from: set init, and text = init"
    ):
        preferring(text="own")
