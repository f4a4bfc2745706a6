"""Longplay: text and audio prompts in, coherent 48 kHz music of eight minutes and more out.

Importing this package does not import torch; `Pipeline` and `Audio` are resolved on first use.
"""

from typing import TYPE_CHECKING, Any

from longplay.errors import LongplayError
from longplay.prompt import GenerationOptions, Prompt, Section

if TYPE_CHECKING:
    from longplay.audio import Audio
    from longplay.pipeline import Pipeline

__version__ = "0.1.0"
__all__ = ["Audio", "GenerationOptions", "LongplayError", "Pipeline", "Prompt", "Section", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Pipeline":
        from longplay.pipeline import Pipeline

        return Pipeline
    if name == "Audio":
        from longplay.audio import Audio

        return Audio
    raise AttributeError(f"module 'longplay' has no attribute {name!r}")
