"""`evaluate`: a model on the test split of a corpus, part by part, into a report."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from longplay import __version__
from longplay.audio import Audio
from longplay.control import Control
from longplay.data.musicnn import Listener
from longplay.engine.encode import encode
from longplay.engine.vocode import decode
from longplay.errors import UserError
from longplay.evaluate.candidates import Asked, find_candidates
from longplay.evaluate.clips import Clip, cut_clips, eligible_tracks
from longplay.evaluate.generation import BEATLESS, adherence_rows, artifact_rows, controls, prompt_of, quality_rows
from longplay.evaluate.going_on import kept_rows
from longplay.evaluate.long_form import LongForm, Sounds, long_form_rows
from longplay.evaluate.reconstruction import code_usage, opus_clips, reconstruction_rows
from longplay.evaluate.report import Part, Report, write_report
from longplay.evaluate.speed import speed_rows
from longplay.models.codec import Codec
from longplay.models.tokenizer import Tokenizer
from longplay.nn.ode import evaluations
from longplay.pipeline import Pipeline, Through
from longplay.pipeline.precision import AUTO
from longplay.prompt import GenerationOptions, Prompt
from longplay.report import check_plotting

PartName = Literal["codec", "tokenizer", "flow", "generation", "speed", "long", "steps", "continuation"]
PARTS: tuple[PartName, ...] = get_args(PartName)
DEFAULT_PARTS = PARTS[:5]  # the others take as long as all these together
MIN_SECONDS = 4.0  # one patch of musicnn, and some more for tempo and key
EIGHT_MINUTES = LongForm()
AS_IT_IS = GenerationOptions()
EVALUATIONS = (1, 2, 4, 10)
REFERENCE_RATIO = 2  # reference clips of real music per generated clip
BEATLESS_RATIO = 4  # clips of all kinds per clip without a beat

Wav = npt.NDArray[np.float32]
logger = logging.getLogger(__name__)


def evaluate_model(
    model: str | Path,
    manifest: Path,
    out: Path,
    *,
    clips: int = 64,
    seconds: float = 10.0,
    parts: Sequence[PartName] = DEFAULT_PARTS,
    long_form: LongForm = EIGHT_MINUTES,
    candidates: int | None = None,
    options: GenerationOptions = AS_IT_IS,
    device: str = "auto",
    precision: str = AUTO,
) -> Report:
    """Evaluate a model and write `results.json`, `results.md`, `results.png` and the generated clips into `out`.

    Args:
        model: name or directory; what it lacks is reported as missing.
        manifest: of a corpus with a test split.
        out: folder, made if needed.
        clips: number of clips of the test split, and of generated clips.
        seconds: length of each.
        parts: what to evaluate.
        long_form: the pieces of part `long`.
        candidates: seeds to choose from for each clip of part `generation` (`evaluate/candidates.py`); None: no choice.
        options: of all that is made; `seconds`, `seed` and `fast` are the evaluation's own.
        device: for the model; the measures are computed on the CPU.
        precision: of the lm, see `Pipeline.load`.

    Raises:
        UserError: too few or too short clips, no test split, no matplotlib, or no such precision on this machine.
        CheckpointError, ConfigError, AudioError: the model, manifest or audio cannot be read.
        DownloadError: the weights of musicnn cannot be fetched.
    """
    if clips < 2 or seconds < MIN_SECONDS:
        raise UserError(f"{clips} clips of {seconds:g} s: use at least 2 clips of {MIN_SECONDS:g} s")
    if long_form.pieces < 2 or long_form.seconds < 2 * long_form.stretch:
        raise UserError(
            f"{long_form.pieces} long pieces of {long_form.seconds:g} s: use at least 2 of {2 * long_form.stretch:g} s"
        )
    check_plotting()
    pipeline, listener = Pipeline.load(model, device, precision), Listener.pretrained()
    evaluation = Evaluation(pipeline, listener, manifest, out, clips, seconds, long_form, candidates, options)
    found = [part for name in PARTS if name in parts for part in evaluation.run(name)]
    report = evaluation.report(found)
    write_report(report, out)
    return report


def parse_parts(text: str) -> list[PartName]:
    """Read `codec,speed`.

    Raises:
        UserError: an unknown part.
    """
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise UserError(f"parts {', '.join(unknown)}: unknown; use some of {', '.join(PARTS)}")
    return [name for name in PARTS if name in names]


class Evaluation:
    """One model, one set of clips; `run` does one part."""

    def __init__(
        self,
        pipeline: Pipeline,
        listener: Listener,
        manifest: Path,
        out: Path,
        count: int,
        seconds: float,
        long_form: LongForm = EIGHT_MINUTES,
        candidates: int | None = None,
        options: GenerationOptions = AS_IT_IS,
    ) -> None:
        self.pipeline, self.system, self.listener = pipeline, pipeline.system, listener
        self.manifest, self.out, self.count, self.seconds = manifest, out, count, seconds
        self.long_form, self.candidates, self.options = long_form, candidates, options
        self.tracks = eligible_tracks(manifest, "test", seconds)
        self.clips: list[Clip] = []

    def run(self, name: PartName) -> list[Part]:
        """One part; generation comes with how well it keeps to its prompts."""
        logger.info("evaluating %s: %s", self.pipeline.name, name)
        if name == "speed":
            about = f"Seconds of music per second of computing, one piece of {self.seconds:g} s."
            return [Part(name, about, speed_rows(self.pipeline, self.seconds))]
        needs = {
            "codec": ["codec"],
            "tokenizer": ["tokenizer"],
            "generation": ["lm", "tokenizer"],
            "long": ["lm", "tokenizer"],
            "continuation": ["lm", "tokenizer"],
        }
        absent = [
            need for need in needs.get(name, ["tokenizer", "flow", "codec"]) if getattr(self.system, need) is None
        ]
        if absent:
            return [Part(name, "", missing=f"the model has no {' and no '.join(absent)}")]
        if name == "generation":
            return self.generation()
        if name == "long":
            return [self.long()]
        if name == "steps":
            return [self.steps()]
        if name == "continuation":
            return [self.continuation()]
        return [self.flow() if name == "flow" else self.coder(name)]

    def coder(self, name: Literal["codec", "tokenizer"]) -> Part:
        """Reconstruction by codec or tokenizer at its own rate, beside Opus, and the use of its codebooks."""
        coder = self.system.codec if name == "codec" else self.system.tokenizer
        assert coder is not None
        rate = coder.config.sample_rate
        originals = [clip.at(rate) for clip in self.test_clips()]
        systems = {name: self._reconstruct(originals, rate, name, rate), **opus_clips(originals, rate)}
        rows = reconstruction_rows(originals, systems, rate, self.listener, coder.config.frame_rate)
        usage = code_usage([self._codes(coder, wav) for wav in originals], coder.config.codebook_size)
        about = f"Test clips through the {name}, and through Opus, at {rate} Hz."
        return Part(name, about, rows, usage)

    def flow(self) -> Part:
        """From the tokenizer's codes to audio at the codec's rate, by flow and codec or by the tokenizer's decoder."""
        assert self.system.codec is not None
        rate = self.system.codec.config.sample_rate
        originals = [clip.at(rate) for clip in self.test_clips()]
        systems = {
            "tokenizer, flow, codec": self._reconstruct(originals, rate, "both", rate),
            "tokenizer alone": self._reconstruct(originals, rate, "tokenizer", rate),
            "codec alone": self._reconstruct(originals, rate, "codec", rate),
            "codec, unquantized": [self._decoded(self.system.codec, wav) for wav in originals],
        }
        about = f"Test clips from the tokenizer's codes, at {rate} Hz; the codec, its latents unquantized, is the flow's ceiling."
        frame_rate = self.system.codec.config.frame_rate
        return Part("flow", about, reconstruction_rows(originals, systems, rate, self.listener, frame_rate))

    def steps(self) -> Part:
        """The flow with its own solver and guidance, by how often it computes a velocity."""
        assert self.system.codec is not None
        assert self.system.flow is not None
        rate, config = self.system.codec.config.sample_rate, self.system.flow.config
        solver = self.options.solver or config.solver
        guidance = config.guidance if self.options.flow_guidance is None else self.options.flow_guidance
        originals = [clip.at(rate) for clip in self.test_clips()]
        systems = {}
        for count in EVALUATIONS:
            steps, rest = divmod(count, evaluations(solver, 1))
            if not rest:
                systems[f"{count} evaluations"] = self._reconstruct(originals, rate, "both", rate, steps)
        about = (
            f"Test clips from the tokenizer's codes, at {rate} Hz, by the number of times that the flow computes a velocity: "
            f"{solver}, guidance {guidance:g}."
        )
        frame_rate = self.system.codec.config.frame_rate
        return Part("steps", about, reconstruction_rows(originals, systems, rate, self.listener, frame_rate))

    def generation(self) -> list[Part]:
        """Music from the captions of every other test track, against the other half of the tracks; and music without a beat."""
        clips = cut_clips(self.manifest, self.tracks[::2], self.count, self.seconds)
        reference = cut_clips(self.manifest, self.tracks[1::2], REFERENCE_RATIO * self.count, self.seconds)
        pieces = [
            self._generate(index, prompt_of(clip.track), self.seconds, "generated", self.candidates)
            for index, clip in enumerate(clips)
        ]
        beatless = [
            self._generate(index, BEATLESS[index % len(BEATLESS)], self.seconds, "beatless")[0]
            for index in range(max(len(BEATLESS), self.count // BEATLESS_RATIO))
        ]
        made, held = [audio for audio, _ in pieces], [control for _, control in pieces]
        wavs, rate, real_rate = [audio.wav[0] for audio in made], made[0].sample_rate, clips[0].sample_rate
        heard, real = self.listener.hear(wavs, rate), self.listener.hear([clip.wav for clip in clips], real_rate)
        others = {name: self.listener.embed(wrong, real_rate) for name, wrong in controls(clips).items()}
        target = self.listener.embed([clip.wav for clip in reference], reference[0].sample_rate)
        about = (
            f"{len(clips)} clips of {self.seconds:g} s from captions of half the test tracks"
            f"{' (fast mode: no flow or codec)' if self._fast else ''}"
            f"{f', the best of {self.candidates} candidates each' if self.candidates else ''}; reference: {len(reference)} clips of the other half."
        )
        met = "Share of prompts met: own clip out of 8 by tags, tempo within 4 %, exact key (as estimated from the audio), tonic of the likeliest key; share of the time with the chord that the model was told of."
        decoder = self.system.tokenizer if self._fast else self.system.codec
        assert decoder is not None
        frame_rate = decoder.config.frame_rate
        added = (
            f"Power at multiples of {frame_rate:g} Hz against its surroundings; share of silent seconds, and of seconds in which nothing begins, "
            f"three such seconds beside them; also of {len(beatless)} pieces from {len(BEATLESS)} prompts for music without a beat."
        )
        sets = {
            "generated": wavs,
            "generated, no beat": [audio.wav[0] for audio in beatless],
            "real": [clip.at(rate) for clip in clips],
        }
        return [
            Part("generation", about, quality_rows(target, real.embeddings, {"generated": heard.embeddings, **others})),
            Part("artifacts", added, artifact_rows(sets, rate, frame_rate)),
            Part("adherence", met, adherence_rows(clips, real, wavs, rate, heard, held)),
        ]

    def long(self) -> Part:
        """Every minute of long pieces from the captions of test tracks, against the other half of the tracks."""
        form = self.long_form
        tracks = [track for track in self.tracks[::2] if track.seconds >= form.stretch]
        if not tracks:
            raise UserError(f"{self.manifest}: no track of the test split lasts {form.stretch:g} s, as part long needs")
        real = cut_clips(self.manifest, tracks, form.pieces, form.stretch)
        reference = cut_clips(self.manifest, self.tracks[1::2], REFERENCE_RATIO * self.count, self.seconds)
        target = self.listener.embed([clip.wav for clip in reference], reference[0].sample_rate)
        made = [
            self._generate(index, prompt_of(clip.track), form.seconds, "long")[0] for index, clip in enumerate(real)
        ]
        sounds = Sounds([audio.wav[0] for audio in made], made[0].sample_rate)
        others = Sounds([clip.wav for clip in real], real[0].sample_rate)
        rows, facts = long_form_rows(sounds, others, target, self.listener, form.stretch)
        about = (
            f"{len(made)} pieces of {form.seconds:g} s in stretches of {form.stretch:g} s: Frechet distance to real "
            "music; share of seconds that repeat one of the 30 s before; flatness (0: noise); level; silent seconds."
        )
        return Part("long", about, rows, facts)

    def continuation(self) -> Part:
        """The second halves of test clips of twice the length, made from their first halves without a word."""
        tracks = [track for track in self.tracks if track.seconds >= 2 * self.seconds]
        if not tracks:
            raise UserError(f"{self.manifest}: no track of the test split lasts {2 * self.seconds:g} s")
        clips = cut_clips(self.manifest, tracks, self.count, 2 * self.seconds)
        rate = clips[0].sample_rate
        halves = [np.array_split(clip.wav, 2) for clip in clips]
        made = [self._continue(index, Audio(first[None], rate)) for index, (first, _) in enumerate(halves)]
        about = (
            f"{len(clips)} clips go on for {self.seconds:g} s from {self.seconds:g} s of a recording, without words: share with "
            "a pulse; share that keep the tempo within 4 %, and the key, of what was heard."
        )
        heard, followed = ([half[number] for half in halves] for number in range(2))
        return Part("continuation", about, kept_rows(heard, followed, made, rate))

    def report(self, parts: Sequence[Part]) -> Report:
        """The parts with what they were measured on."""
        models = {name: getattr(self.system, name) for name in ("tokenizer", "lm", "flow", "codec")}
        sizes = {
            name: sum(parameter.numel() for parameter in model.parameters())
            for name, model in models.items()
            if model is not None
        }
        setting: dict[str, str | int | float] = {
            "clips": self.count,
            "seconds": self.seconds,
            "tracks": len(self.tracks),
            "device": self.system.device.type,
            "precision": self.pipeline.precision or "none",
            "threads": torch.get_num_threads(),
            "version": __version__,
            **self.options.model_dump(exclude_defaults=True),
        }
        return Report(self.pipeline.name, self.pipeline.digest, sizes, setting, parts)

    def test_clips(self) -> list[Clip]:
        """The clips for reconstruction, cut once."""
        self.clips = self.clips or cut_clips(self.manifest, self.tracks, self.count, self.seconds)
        return self.clips

    def _reconstruct(
        self,
        wavs: Sequence[Wav],
        rate: int,
        through: Through,
        target: int,
        num_steps: int | None = None,
    ) -> list[Wav]:
        options = self.options.model_copy(update={"seed": 0, "num_steps": num_steps or self.options.num_steps})
        made = [self.pipeline.reconstruct(Audio(wav[None], rate), through, options) for wav in wavs]
        return [audio.resample(target).wav[0][: len(wav)] for audio, wav in zip(made, wavs, strict=True)]

    @torch.inference_mode()
    def _decoded(self, codec: Codec, wav: Wav) -> Wav:
        """A clip as the codec's decoder makes it of the latents of the recording."""
        latents = codec.encoder(torch.from_numpy(wav)[None, None].to(self.system.device))
        return decode(codec, latents)[0, 0, : len(wav)].cpu().numpy()

    def _codes(self, coder: Tokenizer | Codec, wav: Wav) -> npt.NDArray[np.integer]:
        codes = encode(coder, torch.from_numpy(wav)[None, None].to(self.system.device))[0]
        return np.atleast_2d(codes.cpu().numpy())

    @property
    def _fast(self) -> bool:
        return self.system.flow is None or self.system.codec is None

    def _continue(self, index: int, heard: Audio) -> Wav:
        own = {"seconds": self.seconds, "seed": index, "fast": self._fast, "prompt_seconds": self.seconds}
        audio = self.pipeline.continue_(heard, "", self.options.model_copy(update=own))
        folder = self.out / "continued"
        folder.mkdir(parents=True, exist_ok=True)
        audio.save(folder / f"{index:03d}.flac")
        logger.info("continued: made number %d", index + 1)
        return audio.mono()[0, heard.wav.shape[1] :]

    def _generate(
        self, index: int, text: str, seconds: float, name: str, candidates: int | None = None
    ) -> tuple[Audio, Control | None]:
        """A piece from words, and what it was held to."""
        prompt = Prompt(text=text)
        own = {"seconds": seconds, "seed": index * (candidates or 1), "fast": self._fast}
        options = self.options.model_copy(update=own).settle(prompt)
        if candidates is not None and Asked.of(prompt):
            options = options.with_seed(
                find_candidates(self.pipeline, prompt, options, candidates, self.listener)[0].seed
            )
        audio = self.pipeline.generate(prompt, options)
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        audio.save(folder / f"{index:03d}.flac")
        logger.info("%s: made number %d", name, index + 1)
        return audio, self.pipeline.held_to(prompt, options)
