"""How a piece was made: all that is needed to make it again, bit for bit, on the same machine."""

from pathlib import Path
from typing import Any, Literal

from longplay.audio import Audio, Finish
from longplay.config import Config
from longplay.errors import AudioError, ConfigError
from longplay.pipeline.precision import Precision
from longplay.prompt import Prompt, SettledOptions

Task = Literal["generate", "continue", "reconstruct", "upscale"]
Through = Literal["tokenizer", "codec", "both"]


class Recipe(Config):
    """What a file that this package made carries in its tags.

    Attributes:
        task: which command made it.
        prompt: text and sections.
        options: with the duration and seed that were used.
        model: the name or directory that was asked for.
        digest: SHA-256 over the weights.
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
