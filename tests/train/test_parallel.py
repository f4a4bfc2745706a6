"""Several processes on one CPU, over gloo: the same run as in one process, and what happens when one dies."""

import json
import multiprocessing
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from longplay.errors import ConfigError
from longplay.train.loop import train
from longplay.train.loop_config import LoopConfig
from longplay.train.parallel import Parallel
from longplay.train.update import Updater

# float32 sums in another order; AdamW turns rounding of near-zero gradients into steps, hence the size
TOLERANCE = {"atol": 2e-4, "rtol": 2e-3}
EXACT = {"precision": "float32"}


def run_processes(work: Callable[[], object], folder: Path, count: int = 2) -> list[int]:
    """Run `work` in forked processes of one gloo group; returns their exit codes, errors lie in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def main(rank: int) -> None:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        torch.set_num_threads(1)  # the threads of the parent did not survive the fork
        try:
            work()
        except BaseException:
            (folder / f"error-{rank}.txt").write_text(traceback.format_exc())
            os._exit(1)
        os._exit(0)

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=main, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        if process.is_alive():
            process.kill()
    return [process.exitcode or 0 for process in processes]


def weights(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoint.pt", weights_only=True)


def assert_same_run(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a["step"] == b["step"]
    for part in ("model", "average"):
        for name, value in a[part].items():
            torch.testing.assert_close(b[part][name], value, **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("shard", "packed"), [(False, {}), (True, {}), (True, {"row_positions": 48})], ids=["ddp", "fsdp", "packed"]
)
def test_two_processes_do_what_one_does(lm_stage: Any, tmp_path: Path, shard: bool, packed: dict[str, int]) -> None:
    alone = lm_stage(**packed)
    loop = alone.config.loop.model_copy(update=EXACT)
    train(alone, loop, tmp_path / "alone")
    sharded = loop.model_copy(update={"shard": shard})
    codes = run_processes(lambda: train(lm_stage(**packed), sharded, tmp_path / "two"), tmp_path)
    assert codes == [0, 0], [path.read_text() for path in tmp_path.glob("error-*")]
    assert_same_run(tmp_path / "alone", tmp_path / "two")
    records = [json.loads(line) for line in (tmp_path / "two/metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 4]  # one process writes
    assert (tmp_path / "two/model/lm.safetensors").exists()


@pytest.mark.parametrize("shard", [False, True], ids=["ddp", "fsdp"])
def test_a_run_goes_on_with_another_number_of_processes(lm_stage: Any, tmp_path: Path, shard: bool) -> None:
    whole = lm_stage()
    loop = whole.config.loop.model_copy(update=EXACT)
    train(whole, loop, tmp_path / "whole")
    train(lm_stage(), loop, tmp_path / "parts", budget_seconds=0.0)
    sharded = loop.model_copy(update={"shard": shard, "steps": 4})
    codes = run_processes(lambda: train(lm_stage(), sharded, tmp_path / "parts", budget_seconds=0.0), tmp_path)
    assert codes == [0, 0], [path.read_text() for path in tmp_path.glob("error-*")]
    assert weights(tmp_path / "parts")["step"] == 2
    assert train(lm_stage(), loop, tmp_path / "parts") == 4
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


GAN = {"adversarial": {"start_step": 2, "discriminators": {"periods": [2], "n_ffts": [64], "channels": 4}}}
SHARES = {"mel": 1, "magnitude": 1, "complex": 1, "adversarial": 3, "features": 3}


@pytest.mark.parametrize(
    "changes",
    [GAN, GAN | {"balance": {"shares": SHARES, "decay": 0.9}}, {"spectrum": {"steadiness": 20.0}, "unquantized_share": 0.5}],
    ids=["gan", "balanced", "spectrum"],
)  # fmt: skip
def test_every_loss_of_an_autoencoder_is_of_the_whole_batch(
    audio_stage: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    alone = audio_stage(loop=EXACT, **changes)
    train(alone, alone.config.loop, tmp_path / "alone")

    def work() -> None:
        stage = audio_stage(loop=EXACT, **changes)
        train(stage, stage.config.loop, tmp_path / "two")

    assert run_processes(work, tmp_path) == [0, 0], [path.read_text() for path in tmp_path.glob("error-*")]
    assert_same_run(tmp_path / "alone", tmp_path / "two")
    a, b = weights(tmp_path / "alone"), weights(tmp_path / "two")
    for part, state in a["others"].items():
        for name, value in state.items():
            torch.testing.assert_close(b["others"][part][name], value, **TOLERANCE)


def test_a_killed_process_ends_the_run_with_the_checkpoint_intact(lm_stage: Any, tmp_path: Path) -> None:
    def work() -> None:
        stage = lm_stage()
        batch = stage.batch

        def dies(step: int, rows: slice) -> Any:
            if step == 3 and rows.start > 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return batch(step, rows)

        stage.batch = dies
        train(stage, stage.config.loop, tmp_path / "run")

    assert run_processes(work, tmp_path) == [1, -signal.SIGKILL]
    message = (tmp_path / "error-0.txt").read_text().splitlines()[-1]
    assert "TrainingError: process 0 of 2 lost another one" in message
    assert "checkpoint in" in message
    assert weights(tmp_path / "run")["step"] == 3
    stage = lm_stage()
    assert train(stage, stage.config.loop, tmp_path / "run") == 4


def test_processes_draw_disjoint_rows_of_one_batch(monkeypatch: Any) -> None:
    parallel = Parallel(LoopConfig(steps=1, trackers=(), accumulate=2), Path("unused"))
    parallel.processes = 2
    rows = []
    for parallel.rank in (0, 1):
        rows += parallel.rows(8)
    assert [list(range(8))[part] for part in rows] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    with pytest.raises(ConfigError, match="batch_size = 6: is no multiple of 4 .2 processes, loop.accumulate 2"):
        parallel.rows(6)


def test_what_the_machine_cannot_do_is_named(lm_stage: Any, audio_stage: Any, tmp_path: Path) -> None:
    stage = lm_stage()
    loop = stage.config.loop
    with pytest.raises(ConfigError, match="loop.shard = true: there is one process"):
        Updater(stage, loop, Parallel(loop.model_copy(update={"shard": True}), tmp_path))
    stage = audio_stage(loop={"shard": True})
    with pytest.raises(ConfigError, match="stage tokenizer is small and not sharded"):
        train(stage, stage.config.loop, tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="loop.device = 'cuda': this machine has none"):
            Parallel(loop.model_copy(update={"device": "cuda"}), tmp_path)


@pytest.mark.gpu
def test_a_gpu_does_what_the_cpu_does(lm_stage: Any, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    for device in ("cpu", "cuda"):
        stage = lm_stage()
        train(stage, stage.config.loop.model_copy(update={**EXACT, "device": device}), tmp_path / device)
    a, b = (weights(tmp_path / device)["model"] for device in ("cpu", "cuda"))
    for name, value in a.items():
        torch.testing.assert_close(b[name].cpu(), value, atol=2e-3, rtol=2e-2)
