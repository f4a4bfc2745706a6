"""The golden tensors of the published models, by fixture name."""

import json
import os
from pathlib import Path
from typing import Any

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
