"""The pipeline: prompt in, music out. `generate` and `stream` are the same code.

```
prompt (text, sections, seconds) ─┐
audio prompt ─ tokenizer.encode ──┴─> lm ─> codes ─> flow ─> latents ─> codec.decode ─> wav (48 kHz)
                                             └────── tokenizer.decode (fast) ─────────> wav (24 kHz)
```
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from longplay import __version__
from longplay.audio import Audio
from longplay.checkpoint.adapter import load_adapter
from longplay.checkpoint.system import System, load_system
from longplay.control import Control
from longplay.errors import PromptError
from longplay.models.flow_config import PUBLISHED_SOLVER
from longplay.pipeline.continuation import check_sound, go_on, hear
from longplay.pipeline.device import resolve_device
from longplay.pipeline.highs import add_highs
from longplay.pipeline.precision import AUTO, COMPILED, Precision, check_precision, load_dtype, settle
from longplay.pipeline.recipe import Recipe, Task, Through, UsedAdapter, read_recipe
from longplay.pipeline.session import Making, Session, SessionClosed
from longplay.pipeline.steps import Steps
from longplay.pipeline.stream import Progress, Stage, Stream, do_nothing, one_at_a_time, silent
from longplay.pipeline.synthesis import speed_up
from longplay.prompt import GenerationOptions, Prompt, SettledOptions

SKETCHES_AT_ONCE = 8

__all__ = ["Pipeline", "Progress", "Recipe", "Session", "SessionClosed", "Stream", "Take", "Through", "read_recipe"]


class Take(NamedTuple):
    """How a piece begins: `codes` [T] of the lm, and what they sound like."""

    codes: npt.NDArray[np.integer[Any]]
    audio: Audio


class Pipeline:
    """A loaded model and the tasks it can do."""

    def __init__(self, system: System, name: str, precision: Precision | None = None) -> None:
        self.system = system
        self.name = name
        self.precision = precision

    @classmethod
    def load(
        cls,
        name_or_path: str | Path | None = None,
        device: str = "auto",
        precision: str = AUTO,
        adapter: str | Path | None = None,
        adapter_scale: float = 1.0,
    ) -> "Pipeline":
        """Open a model.

        Args:
            name_or_path: `nano`, a native or published model directory, or a name on a hub; default: the model that the
                adapter was made for, else `nano`.
            device: auto, cpu, cuda or mps.
            precision: of the lm: float32, bfloat16, float16, int8 or int4 (on the CPU); or auto: on the CPU int8 where the
                model has an int8 form that is close enough (`longplay models quantize`), else float32; elsewhere as stored.
            adapter: directory that `longplay finetune` made.
            adapter_scale: how strongly it is to act; 1 as trained, 0 not at all.

        Raises:
            CheckpointError: no model or adapter there, it is incomplete or damaged, or the adapter is for another model.
            DownloadError: a hub cannot be reached.
            UserError: this machine has no such device, or there is no such precision on it.
        """
        place = resolve_device(device)
        check_precision(precision)
        change = None if adapter is None else load_adapter(adapter, adapter_scale)
        model = name_or_path or (change.config.base if change else "nano")
        name = str(model)
        system = load_system(model, place, load_dtype(precision, place), adapter=change, lean=place.type == "cpu")
        speed_up(system)
        return cls(system, name, None if system.lm is None else settle(system, name, precision))

    @property
    def digest(self) -> str:
        """SHA-256 over the weights, hex."""
        return self.system.digest

    def generate(
        self, prompt: Prompt | str, options: GenerationOptions | None = None, progress: Progress = silent
    ) -> Audio:
        """Text to music: mono, at the codec's rate (with `fast`, the tokenizer's), with its recipe.

        Raises:
            PromptError: no text, or options out of range.
            CheckpointError: the model lacks a part that the task needs.
            AudioError: the model made NaN.
        """
        stream = self.stream(prompt, options, progress=progress)
        return stream.join(list(stream))

    def continue_(
        self,
        audio: Audio,
        prompt: Prompt | str = "",
        options: GenerationOptions | None = None,
        progress: Progress = silent,
    ) -> Audio:
        """The recording, untouched, and `options.seconds` more, at its own rate and channels.

        Args:
            audio: at least 1 s, of any rate and channels.
            prompt: may be empty; times of sections count from the start of `audio`.
            options: of the generation.
            progress: hears how far each stage is.

        Raises:
            PromptError: `audio` is silent or too short, or options are out of range.
            CheckpointError, AudioError: as for `generate`.
        """
        stream = self.stream(prompt, options, audio, progress)
        return stream.join(list(stream))

    def stream(
        self,
        prompt: Prompt | str,
        options: GenerationOptions | None = None,
        audio: Audio | None = None,
        progress: Progress = silent,
        session: Session | None = None,
        owner: str = "",
    ) -> Stream:
        """What `generate`, or `continue_` if there is `audio`, returns, in chunks as they are made.

        Args:
            prompt, options, audio, progress: as of `generate` and `continue_`.
            session: make it beside others, from now on; None: alone, as it is iterated over.
            owner: in a session, whom to be fair to.

        Raises:
            PromptError, CheckpointError: at once, as for `generate` and `continue_`; the piece does not fit into the session.
            AudioError: while iterating, if the model makes NaN.
            SessionClosed: while iterating, if the session is closed.
        """
        prompt = Prompt(text=prompt) if isinstance(prompt, str) else prompt
        if audio is None:
            prompt.require_text()
        else:
            check_sound(audio)
        self._check_held(prompt)
        settled = self._settle(options or GenerationOptions(), prompt, after=audio.seconds if audio else 0.0)
        steps = Steps(self.system, self.name, settled, one_at_a_time(progress))
        recipe = partial(self._recipe, "continue" if audio else "generate", prompt, settled, audio)
        heard = None if audio is None else hear(audio, steps.heard_seconds, steps.tokenizer.config)
        if session is None:
            made = Making(steps.make(prompt, heard), do_nothing)
        else:
            made = session.make(steps, prompt, heard, owner)
        if audio is None or heard is None:
            return Stream(steps.sample_rate, made.chunks, recipe, made.cancel)
        return Stream(audio.sample_rate, go_on(audio, heard, made.chunks, steps.sample_rate), recipe, made.cancel)

    @property
    def exact_together(self) -> bool:
        """Whether codes of pieces made at once are those of each made alone: sums of other shapes do not round otherwise."""
        return self.system.device.type == "cpu" and (self.precision == "float32" or self.precision in COMPILED)

    def session(self, slots: int = 8, seconds: float = 60.0, guided: bool = True, cache: str | None = None) -> Session:
        """What makes up to `slots` pieces at once, which may come and go: see `Session`, and `stream`.

        Raises:
            CheckpointError: the model has no lm.
        """
        lm = Steps(self.system, self.name, GenerationOptions(seed=0).settle(Prompt()), silent).lm
        return Session(self.system, lm, slots, seconds, guided, cache)

    def held_to(self, prompt: Prompt, options: SettledOptions) -> Control | None:
        """Tempo, key and chords that `generate` holds a piece to, asked for or drawn by its seed; None where the model hears words alone."""
        return Steps(self.system, self.name, options, silent).held_to(prompt, options.seed)

    def sketch(
        self,
        prompt: Prompt | str,
        seeds: Sequence[int],
        options: GenerationOptions | None = None,
        seconds: float = 10.0,
    ) -> list[Audio]:
        """How `generate` begins with each of some seeds.

        Their codes are made side by side where that does not change them (see `precision`), which takes a fraction of the time.

        Raises:
            PromptError: no text, or options out of range.
            CheckpointError: the model lacks a part that the task needs.
        """
        return [take.audio for take in self.takes(prompt, seeds, options, seconds)]

    def takes(
        self,
        prompt: Prompt | str,
        seeds: Sequence[int],
        options: GenerationOptions | None = None,
        seconds: float = 10.0,
        held: int | None = None,
    ) -> list[Take]:
        """`sketch` with the codes.

        Args:
            prompt, seeds, options, seconds: as for `sketch`.
            held: hold all of them to what a piece of this seed is held to (`held_to`); None: each to its own.

        Raises:
            PromptError, CheckpointError: as for `sketch`.
        """
        prompt = Prompt(text=prompt) if isinstance(prompt, str) else prompt
        prompt.require_text()
        self._check_held(prompt)
        settled = self._settle(options or GenerationOptions(), prompt)
        steps = Steps(self.system, self.name, settled, silent)
        size = SKETCHES_AT_ONCE if self.exact_together else 1
        groups = [seeds[first : first + size] for first in range(0, len(seeds), size)]
        return [
            Take(codes.cpu().numpy(), Audio(wav, steps.sample_rate))
            for group in groups
            for codes, wav in steps.sketch(prompt, group, min(seconds, settled.seconds), held)
        ]

    def reconstruct(
        self,
        audio: Audio,
        through: Through = "codec",
        options: GenerationOptions | None = None,
        progress: Progress = silent,
    ) -> Audio:
        """A recording through the tokenizer, the codec, or both (tokenizer, flow, codec), each channel by itself.

        Raises:
            PromptError: `audio` is silent or shorter than 1 s.
            CheckpointError, AudioError: as for `generate`.
        """
        check_sound(audio)
        settled = self._settle(options or GenerationOptions(seed=0), Prompt())
        settled = settled.model_copy(update={"fast": through == "tokenizer"})
        made = Steps(self.system, self.name, settled, progress).reconstruct(audio, latents=through == "codec")
        recipe = self._recipe("reconstruct", Prompt(), settled, audio)
        return replace(made, recipe=recipe.model_copy(update={"through": through}).tags())

    def upscale(self, audio: Audio, options: GenerationOptions | None = None, progress: Progress = silent) -> Audio:
        """A recording at the tokenizer's rate or less, at the codec's rate, with the highs that it lacked.

        Its own band stays as it is; tokenizer, flow and codec make what lies above.

        Raises:
            PromptError: `audio` is silent, shorter than 1 s, or at a higher rate.
            CheckpointError, AudioError: as for `generate`.
        """
        steps = Steps(self.system, self.name, GenerationOptions(seed=0).settle(Prompt()), progress)
        limit = steps.tokenizer.config.sample_rate
        if audio.sample_rate > limit:
            raise PromptError(f"the audio has {audio.sample_rate} Hz already; upscale takes {limit} Hz or less")
        made = self.reconstruct(audio, "both", options, progress)
        return replace(add_highs(audio, made), recipe={**(made.recipe or {}), "task": "upscale"})

    def _check_held(self, prompt: Prompt) -> None:
        """Refuse a tempo, key or chords beside the words where the lm hears words alone."""
        lm = self.system.lm
        if prompt.chords and lm is not None and not lm.config.chords:
            raise PromptError(
                f"model {self.name!r}: has not learnt to follow chords; leave them out, or take a model that has, as nano"
            )
        if (prompt.bpm or prompt.key) and lm is not None and not lm.config.control:
            raise PromptError(
                f"model {self.name!r}: takes tempo and key in words alone; leave out bpm and key and say them in the text, "
                "e.g. '120 bpm, F# minor'"
            )

    def _settle(self, options: GenerationOptions, prompt: Prompt, after: float = 0.0) -> SettledOptions:
        """Everything decided, the models' own defaults too, so that a recipe makes the same sound whatever they become."""
        settled, lm, flow = options.settle(prompt, after), self.system.lm, self.system.flow
        if lm is not None and settled.max_repeat is None:
            settled = settled.model_copy(update={"max_repeat": lm.config.max_repeat})
        if flow is None or settled.fast:
            return settled
        wanted, count = settled.solver, settled.num_steps
        if settled.compatibility == "reference" and wanted is None:
            wanted, count = PUBLISHED_SOLVER[0], count or PUBLISHED_SOLVER[1]
        solver, num_steps = flow.config.defaults(wanted, count)
        guidance = flow.config.guidance if settled.flow_guidance is None else settled.flow_guidance
        if guidance and not flow.config.condition_dropout:
            raise PromptError(
                f"flow_guidance = {guidance:g}: the flow of model {self.name!r} has never been without its codes, so it cannot be guided by them; "
                "leave flow_guidance out, or give 0"
            )
        temperature = flow.config.temperature if settled.flow_temperature is None else settled.flow_temperature
        own = {"solver": solver, "num_steps": num_steps, "flow_guidance": guidance, "flow_temperature": temperature}
        return settled.model_copy(update=own)

    def _recipe(self, task: Task, prompt: Prompt, options: SettledOptions, audio: Audio | None) -> Recipe:
        return Recipe(
            task=task,
            prompt=prompt,
            options=options,
            model=self.name,
            digest=self.digest,
            adapter=UsedAdapter.of(self.system.adapter),
            device=self.system.device.type,
            precision=self.precision if task in ("generate", "continue") else None,
            version=__version__,
            audio_prompt=None if audio is None else audio.digest,
        )


def stages(fast: bool) -> tuple[Stage, ...]:
    """The stages of a generation, in order, as `progress` hears of them."""
    return ("lm", "tokenizer") if fast else ("lm", "flow", "codec")
