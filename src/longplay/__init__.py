"""Longplay: text and audio prompts in, coherent 48 kHz music of eight minutes and more out.

Importing this package imports neither torch nor anything else that is slow; the names are resolved on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from longplay.errors import LongplayError

if TYPE_CHECKING:
    from longplay.audio import Audio, Finish
    from longplay.pipeline import Pipeline
    from longplay.prompt import GenerationOptions, Prompt, Section

__version__ = "0.1.0"
__all__ = ["Audio", "Finish", "GenerationOptions", "LongplayError", "Pipeline", "Prompt", "Section", "__version__"]

_HOMES = {
    "Audio": "longplay.audio",
    "Finish": "longplay.audio",
    "GenerationOptions": "longplay.prompt",
    "Pipeline": "longplay.pipeline",
    "Prompt": "longplay.prompt",
    "Section": "longplay.prompt",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'longplay' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
