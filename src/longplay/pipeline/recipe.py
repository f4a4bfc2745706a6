"""How a piece was made: all that is needed to make it again, bit for bit, on the same machine."""

from pathlib import Path
from typing import Any, Literal, Self

from longplay.audio import Audio, Finish
from longplay.checkpoint.adapter import Adapter
from longplay.config import Config
from longplay.errors import AudioError, ConfigError
from longplay.pipeline.precision import Precision
from longplay.prompt import Prompt, SettledOptions

Task = Literal["generate", "continue", "reconstruct", "upscale"]
Through = Literal["tokenizer", "codec", "both"]


class UsedAdapter(Config):
    """The adapter that took part: its directory as it was asked for, SHA-256 over its weights, its strength."""

    path: str
    digest: str
    scale: float

    @classmethod
    def of(cls, adapter: Adapter | None) -> Self | None:
        """What a recipe says of `adapter`."""
        if adapter is None:
            return None
        return cls(path=str(adapter.directory), digest=adapter.digest, scale=adapter.scale)


class Recipe(Config):
    """What a file that this package made carries in its tags.

    Attributes:
        task: which command made it.
        prompt: text and sections.
        options: with the duration and seed that were used.
        model: the name or directory that was asked for.
        digest: SHA-256 over the weights.
        adapter: that was added to the lm, if any.
        device: cpu, cuda or mps.
        precision: that the lm computed in; None where none took part.
        version: of longplay.
        audio_prompt: SHA-256 over the samples of the recording that was continued or transformed, if there was one.
        through: what it was reconstructed through, if it was.
        finish: what was done to the finished piece, if anything.
    """

    task: Task
    prompt: Prompt
    options: SettledOptions
    model: str
    digest: str
    adapter: UsedAdapter | None = None
    device: str
    precision: Precision | None = None
    version: str
    audio_prompt: str | None = None
    through: Through | None = None
    finish: Finish | None = None

    def tags(self) -> dict[str, Any]:
        """JSON values for `Audio.recipe`, without what is not known."""
        return self.model_dump(mode="json", exclude_none=True)


def read_recipe(path: Path | str) -> Recipe:
    """The recipe in the tags of `path`.

    Raises:
        AudioError: the file is unreadable, or was not made by a version of longplay that this one understands.
    """
    data = Audio.load_recipe(path)
    try:
        return Recipe.parse(data)
    except ConfigError as error:
        made_by = data.get("version", "unknown")
        raise AudioError(f"{path}: its recipe, of longplay {made_by}, is not understood ({error})") from None
