"""What a run says of itself: `metrics.jsonl`, trackers (TensorBoard, Trackio, W&B), and curves as a picture."""

import json
import logging
import os
import re
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from longplay.config import Config
from longplay.files import write_text
from longplay.report import save_figure
from longplay.train.parallel import Parallel
from longplay.train.stage import Stage

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
CURVES = "curves.png"
TRACKER_ID = "tracker_id"
HELD_OUT = "held_out_"
_OF_ONE_BOOK = re.compile(r"_book_(\d+)$")
Record = dict[str, float]


class Log:
    """Writes metrics; only the first process does, the others' calls do nothing."""

    def __init__(self, run: Path, stage: Stage, parallel: Parallel) -> None:
        self.run = run
        self.accelerator: Any = parallel.accelerator if parallel.is_main else None
        if self.accelerator is None:
            return
        run.mkdir(parents=True, exist_ok=True)
        _end_torn_line(run / METRICS)
        told = _told(run, stage.config) if {"trackio", "wandb"} & set(parallel.config.trackers) else {}
        self.accelerator.init_trackers(f"longplay-{stage.name}", init_kwargs=told)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of metrics after `step` updates."""
        if self.accelerator is None:
            return
        rounded = {key: float(f"{value:.6g}") for key, value in values.items()}
        logger.info("%s", "  ".join(f"{key} {value:g}" for key, value in ({"step": step} | rounded).items()))
        with (self.run / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 1), "step": step, **rounded}) + "\n")
        self.accelerator.log(rounded, step=step)

    def draw(self) -> None:
        """Draw `curves.png` anew."""
        if self.accelerator is not None:
            draw_curves(read_metrics(self.run), self.run / CURVES)

    def close(self) -> None:
        """Let the trackers finish their files."""
        if self.accelerator is not None:
            for tracker in self.accelerator.trackers:
                tracker.finish()


def read_metrics(run: Path) -> list[Record]:
    """The lines of a run's log; what was logged before a kill and done again after it counts once."""
    path = run / METRICS
    records: list[Record] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record: Record = json.loads(line)
        except ValueError:  # cut off by a kill
            continue
        while records and records[-1]["step"] > record["step"]:
            records.pop()
        records.append(record)
    return records


def series(records: list[Record], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one metric; a value logged twice for a step counts once, the later one."""
    points = {record["step"]: record[name] for record in records if name in record}
    return list(points), list(points.values())


def draw_curves(records: list[Record], path: Path) -> None:
    """A picture of every metric over the steps: held-out values beside those of training, codebooks side by side."""
    from matplotlib.figure import Figure

    keys = [key for key in dict.fromkeys(key for record in records for key in record) if key not in ("time", "step")]
    if not keys:
        return
    panels: dict[str, list[str]] = {}
    for key in keys:
        panels.setdefault(_OF_ONE_BOOK.sub("", key.removeprefix(HELD_OUT)), []).append(key)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width, height = 4.2 * columns, 2.6 * rows
    figure = Figure(figsize=(width, height))
    # Margins in inches: to find them by measuring every label takes matplotlib longer than all of the drawing.
    figure.subplots_adjust(
        0.6 / width, 0.5 / height, 1 - 0.15 / width, 1 - 0.3 / height, wspace=0.6 / 3.5, hspace=0.8 / 1.8
    )
    for index, (name, of_panel) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, index)
        for key in sorted(of_panel, key=lambda key: key.startswith(HELD_OUT)):
            steps, values = series(records, key)
            book = _OF_ONE_BOOK.search(key)
            label = "held out" if key.startswith(HELD_OUT) else "training"
            label += f", codebook {book[1]}" if book else ""
            axes.plot(steps, values, label=label, marker="o" if len(steps) == 1 else None)
        axes.set(title=name, xlabel="step")
        axes.legend(loc="upper right")
    save_figure(figure, path, dpi=70)


def _told(run: Path, config: Config) -> dict[str, dict[str, Any]]:
    """What Trackio and W&B are told of a run as they begin: the same name and id at each start, so that it goes on there."""
    path = run / TRACKER_ID
    if not path.exists():
        write_text(path, uuid4().hex[:8] + "\n")
    own = path.read_text(encoding="utf-8").strip()
    about = {"name": f"{run.resolve().name}-{own}", "resume": "allow", "config": config.dump()}
    return {"trackio": about, "wandb": about | {"id": own, "dir": str(run)}}


def _end_torn_line(path: Path) -> None:
    """End a line that a kill cut off, so that the next one starts at its beginning."""
    if path.is_file() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
