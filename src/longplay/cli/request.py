"""What the words of a command line ask for, checked, before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longplay.audio import Finish
from longplay.errors import ConfigError, PromptError
from longplay.pipeline.recipe import Recipe, Task, UsedAdapter, read_recipe
from longplay.prompt import GenerationOptions, Prompt, parse_sections

OFF = "off"


@dataclass(frozen=True)
class Request:
    """A checked request.

    Attributes:
        prompt: text and sections.
        options: of the generation.
        finish: of the finished piece.
        loudness_given: whether the user asked for a loudness, which a stream cannot have.
        model: name or directory; None: the adapter's own, else nano.
        adapter: its directory, if any.
        adapter_scale: its strength.
        device: name.
        precision: of the lm.
        remake: the recipe that must be repeated with the very same weights, if any.
        remake_adapter: what the recipe says of its adapter, where the very same one must be used.
    """

    prompt: Prompt
    options: GenerationOptions
    finish: Finish
    loudness_given: bool
    model: str | None
    adapter: str | None
    adapter_scale: float
    device: str
    precision: str
    remake: Recipe | None
    remake_adapter: UsedAdapter | None


def build_request(
    task: Task,
    text: str | None,
    sections: str | None,
    bpm: float | None,
    key: str | None,
    options: Mapping[str, Any],
    finish: Mapping[str, Any],
    source: Path | None,
    model: str | None,
    adapter: str | None,
    adapter_scale: float | None,
    device: str | None,
    precision: str | None,
) -> Request:
    """Put together what is given, over the recipe of `source`, over the defaults.

    Args:
        task: the command.
        text: the prompt in words.
        sections: as on the command line.
        bpm: tempo.
        key: such as "F# minor".
        options: words of `GenerationOptions`; None is not given.
        finish: words of `Finish`; None is not given, loudness may be `off`.
        source: a file whose recipe to start from.
        model: name or directory; a recipe asks for its own weights unless this is given.
        adapter: directory, or `off`; a recipe asks for its own unless this is given.
        adapter_scale: its strength; a recipe asks for its own unless this is given.
        device: name.
        precision: of the lm; a recipe asks for its own unless this is given.

    Raises:
        PromptError: a wrong prompt or option.
        AudioError: `source` carries no recipe.
    """
    recipe = read_recipe(source) if source is not None else None
    if recipe is not None and recipe.task != task:
        remedy = (
            "use that command with --from" if recipe.task in ("generate", "continue") else "run it on the recording"
        )
        raise PromptError(f"{source}: was made by `longplay {recipe.task}`; {remedy}")
    prompt = (recipe.prompt if recipe else Prompt()).dump()
    if text is not None:
        prompt["text"] = text
    if sections is not None:
        prompt["sections"] = parse_sections(sections)
    prompt |= only_given({"bpm": bpm, "key": key})
    base = recipe.options.dump() if recipe else {}
    if recipe and options.get("seconds") is None and sections is not None:
        base["seconds"] = None
    used = recipe.adapter if recipe else None
    chosen = (used.path if used else None) if adapter is None else None if adapter == OFF else adapter
    if adapter_scale is not None and chosen is None:
        raise PromptError(f"--adapter-scale {adapter_scale:g}: there is no adapter; name one with --adapter")
    if adapter_scale is None:
        adapter_scale = used.scale if used else 1.0
    asked = Request(
        prompt=Prompt(**prompt),
        options=GenerationOptions(**base | only_given(options)),
        finish=_finish(task, recipe, finish),
        loudness_given=finish.get("loudness") not in (None, OFF),
        model=model or (recipe.model if recipe else None),
        adapter=chosen,
        adapter_scale=adapter_scale,
        device=device or (recipe.device if recipe else "auto"),
        precision=precision or (recipe.precision if recipe and recipe.precision else "auto"),
        remake=recipe if model is None else None,
        remake_adapter=used if adapter is None else None,
    )
    if task == "generate":
        asked.prompt.require_text()
    return asked


def only_given(words: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None: what a command line does not say."""
    return {word: value for word, value in words.items() if value is not None}


def _finish(task: Task, recipe: Recipe | None, words: Mapping[str, Any]) -> Finish:
    given = only_given(words)
    if given.get("loudness") == OFF:
        given["loudness"] = None
    # An audio prompt must come through untouched, so its level stays unless a loudness is asked for.
    base = {"loudness": None} if task == "continue" else {}
    if recipe and recipe.finish:
        base = recipe.finish.dump()
    try:
        return Finish.parse(base | given, source="options")
    except ConfigError as error:
        raise PromptError(str(error).removeprefix("options: ")) from None
