"""Shared fixtures; shapes in jaxtyping annotations are checked while tests run."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook

install_import_hook(["longplay.nn", "longplay.models"], "beartype.beartype")

GOLDEN = Path(os.environ.get("LONGPLAY_GOLDEN", Path(__file__).parents[2] / "shared" / "reference" / "golden"))


class Golden:
    """One golden fixture: `config`, and tensors by prefix (`weights`, `inputs`, `outputs`)."""

    def __init__(self, name: str) -> None:
        from safetensors.torch import load_file

        self.meta: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
        self.config: dict[str, Any] = self.meta["config"]
        tensors = load_file(GOLDEN / f"{name}.safetensors")
        self.weights, self.inputs, self.outputs = (
            {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            for prefix in ("weights.", "in.", "out.")
        )


@pytest.fixture(scope="session")
def golden_directory() -> Path:
    """The golden fixtures; tests that need them are skipped where they are absent."""
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden fixtures at {GOLDEN}; set LONGPLAY_GOLDEN to their directory")
    return GOLDEN


@pytest.fixture(scope="session")
def golden(golden_directory: Path) -> type[Golden]:
    """Opens a fixture by name: `golden("flow").outputs["solve_48000"]`."""
    return Golden


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small models run fastest, and reproducibly, on one thread."""
    import torch

    torch.set_num_threads(1)
