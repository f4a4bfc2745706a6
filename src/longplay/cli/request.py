"""What the words of a command line ask for, checked, before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from longplay.audio import Finish
from longplay.cli.options import RequestOptions
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


def build_request(task: Task, text: str | None, given: RequestOptions, prompt_seconds: float | None = None) -> Request:
    """Put together what is given, over the recipe of a file (`from_`), over the defaults.

    Args:
        task: the command.
        text: the prompt in words.
        given: as on the command line; None is not given. Loudness and adapter may be `off`. A recipe asks for its own
            weights, adapter and precision unless others are given.
        prompt_seconds: how much of an audio prompt the model hears.

    Raises:
        PromptError: a wrong prompt or option.
        AudioError: the file carries no recipe.
    """
    source, sections, model = given["from_"], given["sections"], given["model"]
    adapter, adapter_scale = given["adapter"], given["adapter_scale"]
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
    prompt |= only_given({name: given[name] for name in ("bpm", "key", "chords")})
    base = recipe.options.dump() if recipe else {}
    if recipe and given["seconds"] is None and sections is not None:
        base["seconds"] = None
    used = recipe.adapter if recipe else None
    chosen = (used.path if used else None) if adapter is None else None if adapter == OFF else adapter
    if adapter_scale is not None and chosen is None:
        raise PromptError(f"--adapter-scale {adapter_scale:g}: there is no adapter; name one with --adapter")
    if adapter_scale is None:
        adapter_scale = used.scale if used else 1.0
    asked = Request(
        prompt=Prompt(**prompt),
        options=GenerationOptions(**base | words_of(GenerationOptions, {**given, "prompt_seconds": prompt_seconds})),
        finish=_finish(task, recipe, words_of(Finish, given)),
        loudness_given=given["loudness"] not in (None, OFF),
        model=model or (recipe.model if recipe else None),
        adapter=chosen,
        adapter_scale=adapter_scale,
        device=given["device"] or (recipe.device if recipe else "auto"),
        precision=given["precision"] or (recipe.precision if recipe and recipe.precision else "auto"),
        remake=recipe if model is None else None,
        remake_adapter=used if adapter is None else None,
    )
    if task == "generate":
        asked.prompt.require_text()
    return asked


def only_given(words: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None: what a command line does not say."""
    return {word: value for word, value in words.items() if value is not None}


def words_of(config: type[BaseModel], words: Mapping[str, Any]) -> dict[str, Any]:
    """What a command line says of a config's fields."""
    return {word: value for word, value in only_given(words).items() if word in config.model_fields}


def _finish(task: Task, recipe: Recipe | None, words: Mapping[str, Any]) -> Finish:
    given = dict(words)
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
