"""Going on from a recording: what the models hear of it, and how the new part joins it.

The models work at their own rate and on one channel; the recording does not change. They hear its end, cut so that
it fills whole frames and ends exactly where the recording ends, and render it together with what follows. The rendering
of the heard part only sets the level; what follows it is the new part, led in from the recording without a click.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass

import numpy as np

from longplay.analysis.measure import measure
from longplay.audio import Audio
from longplay.audio.file import Wav
from longplay.audio.join import OVERLAP_SECONDS, lead_in
from longplay.audio.resample import fit, resample_stream
from longplay.chords import untimed
from longplay.control import Control
from longplay.errors import PromptError
from longplay.models.tokenizer import TokenizerConfig

MIN_SECONDS = 1.0
LEVEL_SECONDS = 3.0
MAX_GAIN = 4.0


def check_sound(audio: Audio) -> None:
    """Refuse what no model can make sense of.

    Raises:
        PromptError: less than 1 s, or silence.
    """
    if audio.seconds < MIN_SECONDS:
        raise PromptError(f"the audio lasts {audio.seconds:.2g} s; give at least {MIN_SECONDS:g} s")
    if audio.silent:
        raise PromptError("the audio is silent (no sample above -80 dBFS); give a recording with sound")


@dataclass(frozen=True)
class Heard:
    """The end of a recording as the tokenizer hears it.

    Attributes:
        wav: mono [1, T * hop_length] at the tokenizer's rate, ending where the recording ends.
        samples: the length of the same stretch in the recording.
        seconds: its duration.
        start: where it starts in the recording, in seconds.
    """

    wav: Wav
    samples: int
    seconds: float
    start: float


def hear(audio: Audio, seconds: float, config: TokenizerConfig) -> Heard:
    """The last `seconds` of a recording, or all of it, in whole frames of the tokenizer."""
    sample_rate, hop_length = config.sample_rate, config.hop_length
    frames = int(min(seconds, audio.seconds) * sample_rate / hop_length)
    length = frames * hop_length
    samples = min(round(length * audio.sample_rate / sample_rate), audio.wav.shape[1])
    end = audio.with_wav(audio.wav[:, -samples:])
    wav = fit(Audio(end.mono(), audio.sample_rate).resample(sample_rate).wav, length)
    seconds = length / sample_rate
    return Heard(wav, samples, seconds, max(0.0, audio.seconds - seconds))


def find_control(heard: Heard, sample_rate: int) -> Control:
    """Pulse, key and chords of what is heard, a second or more, in the time of the recording.

    Args:
        heard: the end of the recording.
        sample_rate: of its `wav`.
    """
    facts = measure(heard.wav[0], sample_rate)
    bars = [heard.start + time for time in facts.bars]
    return Control.tracked(
        bars, facts.bpm, facts.key, [(heard.start + start, chord) for start, chord in untimed(facts.chords)]
    )


def go_on(audio: Audio, heard: Heard, rendered: Iterable[Wav], sample_rate: int) -> Generator[Wav, None, None]:
    """The recording, bit for bit, and then the new part.

    Args:
        audio: the recording.
        heard: what the models heard of it.
        rendered: chunks [1, S] of the heard part and what follows, as the models make them.
        sample_rate: of `rendered`.

    Yields:
        chunks [C, S] with the rate and channels of the recording.
    """
    yield audio.wav
    chunks = resample_stream(rendered, sample_rate, audio.sample_rate)
    overlap = round(OVERLAP_SECONDS * audio.sample_rate)
    made = np.zeros((1, 0), np.float32)
    for chunk in chunks:
        made = np.concatenate([made, chunk], axis=1)
        if made.shape[1] >= heard.samples + overlap:
            break
    if made.shape[1] <= heard.samples:
        return
    gain = _gain(audio, made[:, : heard.samples])
    yield lead_in(audio.wav, _leveled(made[:, heard.samples :], gain), audio.sample_rate).clip(-1, 1)
    for chunk in chunks:
        yield _leveled(chunk, gain)


def _gain(audio: Audio, rendered: Wav) -> Wav:
    """Per channel, the level of the recording's end over that of its rendering [C, 1]; their ratios always stay."""
    count = round(LEVEL_SECONDS * audio.sample_rate)
    real, own = (_rms(wav[:, -count:]) for wav in (audio.wav, rendered))
    gain = real / np.maximum(own, 1e-9)
    return (gain * min(1.0, MAX_GAIN / gain.max())).astype(np.float32)


def _rms(wav: Wav) -> Wav:
    return np.sqrt(np.square(wav, dtype=np.float64).mean(axis=1, keepdims=True))


def _leveled(wav: Wav, gain: Wav) -> Wav:
    return (wav * gain).clip(-1, 1)
