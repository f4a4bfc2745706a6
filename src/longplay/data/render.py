"""Music made here from notes: MMA turns a score into MIDI, fluidsynth and a sound font into audio."""

import logging
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np

from longplay.data.captions import Description, captions
from longplay.data.decode import normalize, read_mono, sounding, write_wav
from longplay.data.manifest import SAMPLE_RATE, Split, Track
from longplay.data.midi import instrument_names, read_midi
from longplay.data.score import Score
from longplay.errors import LongplayError, UserError
from longplay.files import write_text
from longplay.prompt import Section

TOOLS = ("mma", "fluidsynth")
FONTS = (
    "usr/share/sounds/sf2/FluidR3_GM.sf2",
    "usr/share/sounds/sf3/MuseScore_General_Full.sf3",
)
TEST_SHARE, VALID_SHARE = 5, 3  # of each hundred seeds
MAX_TAIL_SECONDS = 4.0
TOLERANCE_SECONDS = 0.5
FADE_SECONDS = 0.5

log = logging.getLogger(__name__)


def find_fonts(roots: Sequence[Path]) -> list[Path]:
    """The General MIDI sound fonts below any of `roots`, each once.

    Raises:
        UserError: none is there.
    """
    found = []
    for font in FONTS:
        candidates = [root / font for root in roots if (root / font).is_file()]
        found += candidates[:1]
    if not found:
        raise UserError("no General MIDI sound font found; run `apt-get install fluid-soundfont-gm`")
    return found


def track_id(seed: int) -> str:
    """The id of the rendered piece of a seed."""
    return f"rendered-{seed:06d}"


def render(score: Score, fonts: Sequence[Path], corpus: Path) -> Track:
    """Render a score to `audio/<id>.wav` in `corpus` and its labels to `rendered/<id>.json`.

    Raises:
        LongplayError: MMA or fluidsynth fails, or the MIDI file is longer or shorter than the score says.
    """
    name = track_id(score.seed)
    with tempfile.TemporaryDirectory() as folder:
        source, midi, audio = (Path(folder) / f"piece.{suffix}" for suffix in ("mma", "mid", "wav"))
        source.write_text(score.text(), encoding="utf-8")
        _run(["mma", str(source), "-f", str(midi)], score)
        played = read_midi(midi.read_bytes())
        if not score.seconds - 2 * score.bar_seconds < played.seconds < score.seconds + TOLERANCE_SECONDS:
            raise LongplayError(
                f"seed {score.seed} ({score.style.genre}): its notes end at {played.seconds:.1f} s, "
                f"the score at {score.seconds:.1f} s; this groove changes the tempo, drop it from grooves.yaml"
            )
        font = _synthesize(score, midi, audio, fonts)
        wav, rate = read_mono(audio)
    wav = wav[: int((score.seconds + MAX_TAIL_SECONDS) * rate)]
    wav = wav[: sounding(wav, rate)[1]]  # what ends in silence teaches to fall silent
    fade = int(FADE_SECONDS * rate)
    wav[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    write_wav(corpus / "audio" / f"{name}.wav", normalize(wav, rate))
    track = _label(score, name, len(wav) / rate, played.instruments, font.stem)
    write_text(corpus / "rendered" / f"{name}.json", track.model_dump_json(exclude_defaults=True))
    return track


def _synthesize(score: Score, midi: Path, audio: Path, fonts: Sequence[Path]) -> Path:
    """Play a MIDI file into a float WAV; font, room and chorus vary with the seed."""
    random = Random(f"sound {score.seed}")
    font = random.choice(fonts)
    settings = {
        "synth.dynamic-sample-loading": "1",
        "synth.reverb.room-size": f"{random.uniform(0.1, 0.8):.2f}",
        "synth.reverb.level": f"{random.uniform(0.1, 0.7):.2f}",
        "synth.chorus.active": str(random.randint(0, 1)),
    }
    options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
    output = ["-F", str(audio), "-r", str(SAMPLE_RATE), "-O", "float", "-T", "wav", "-g", "0.4"]
    _run(["fluidsynth", "-ni", "-q", *options, *output, str(font), str(midi)], score)
    return font


def _label(score: Score, name: str, seconds: float, instruments: tuple[str, ...], font: str) -> Track:
    *inner, outro = score.sections
    if score.voice is not None:  # the tune is what a listener names first
        lead = instrument_names()[score.voice.program]
        instruments = tuple(sorted(instruments, key=lambda instrument: instrument != lead))
    sections = (*inner, Section(label=outro.label, start=outro.start, end=round(seconds, 3)))
    about = Description(
        styles=(score.style.genre,), bpm=score.bpm, key=score.key, instruments=instruments, sections=sections
    )
    hundredth = score.seed % 100
    split: Split = "train"
    if hundredth < TEST_SHARE + VALID_SHARE:
        split = "test" if hundredth < TEST_SHARE else "valid"
    return Track(
        id=name,
        path=f"audio/{name}.wav",
        seconds=round(seconds, 3),
        split=split,
        kind="rendered",
        title=f"{score.style.genre} in {score.key}, {score.bpm} bpm",
        source=f"mma/{score.style.library}/seed {score.seed}/{font}",
        licence="CC0",
        author="Longplay",
        codec_ok=True,
        captions=captions(about),
        sections=sections,
        bpm=score.bpm,
        key=score.key,
        genre=score.style.genre,
        instruments=instruments,
        chords=score.chords,
        bars=score.bars,
    )


def _run(command: list[str], score: Score) -> None:
    result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if result.returncode != 0:
        lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit code {result.returncode}"
        raise LongplayError(f"seed {score.seed} ({score.style.genre}): {command[0]} failed: {reason}")
