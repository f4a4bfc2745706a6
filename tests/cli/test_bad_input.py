"""Every bad input of generate, continue, reconstruct and upscale: one clear line, exit code 2, nothing written."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

TEXT = ("generate", "piano")


def refused(outcome, message: str) -> None:
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate",), "the prompt is empty; describe the music in a few words"),
        (("generate", " "), "the prompt is empty; describe the music in a few words"),
        (
            ("generate", "x" * 5000),
            "text = 'xxxxxxxxxxxx...xxxxxxxxxxxxx': 5000 characters are too many; use at most 4000",
        ),
        ((*TEXT, "--seconds", "-3"), "seconds = -3.0: must be greater than 0"),
        ((*TEXT, "--seconds", "0"), "seconds = 0.0: must be greater than 0"),
        ((*TEXT, "--seconds", "9999"), "seconds = 9999.0: must be less than or equal to 7200"),
        ((*TEXT, "--seconds", "nan"), "seconds = nan: must be a finite number"),
        (
            (*TEXT, "--sections", "bridge:0-5"),
            "section 'bridge:0-5': unknown label 'bridge'; use one of intro, verse, chorus, outro",
        ),
        ((*TEXT, "--sections", "intro:5-2"), "section 'intro:5-2': expected label:start-end with 0 <= start < end"),
        ((*TEXT, "--sections", "intro:-5-2"), "section 'intro:-5-2': expected label:start-end"),
        ((*TEXT, "--sections", "intro"), "section 'intro': expected label:start-end"),
        (
            (*TEXT, "--sections", "intro:0-15,verse:10-20"),
            "sections intro:0-15 and verse:10-20 overlap or are out of order",
        ),
        ((*TEXT, "--sections", "intro:0-15", "--seconds", "5"), "the sections last 15 s, but seconds is 5"),
        ((*TEXT, "--guidance", "-1"), "guidance = -1.0: must be greater than or equal to 0"),
        ((*TEXT, "--top-p", "0"), "top_p = 0.0: must be greater than 0"),
        ((*TEXT, "--seed", "-1"), "seed = -1: must be greater than or equal to 0"),
        ((*TEXT, "--loudness", "3"), "loudness = '3': must be less than or equal to -5"),
        ((*TEXT, "--loudness", "loud"), "loudness = 'loud': must be a valid number"),
        ((*TEXT, "--fade", "-1"), "fade = -1.0: must be greater than or equal to 0"),
        ((*TEXT, "-o", "x.aac"), "x.aac: unknown extension '.aac'; use one of .wav, .flac, .ogg, .mp3"),
        ((*TEXT, "-o", "absent/x.wav"), "the folder absent does not exist; create it first"),
        ((*TEXT, "-o", "-", "--count", "2"), "--output -: 2 pieces cannot share one stream"),
        ((*TEXT, "-o", "-", "--trim"), "--output -: loudness and trim need the whole piece"),
        ((*TEXT, "-o", "-", "--loudness", "-14"), "--output -: loudness and trim need the whole piece"),
        (("generate", "--from", "absent.wav"), "absent.wav: cannot be read"),
        (("generate", "--from", "song.wav"), "song.wav: carries no Longplay recipe in its tags"),
        ((*TEXT, "--model", "no/such/place"), "model 'no/such/place': no such directory"),
        (("continue", "absent.wav"), "absent.wav: does not exist; give the path of an audio file"),
        (("continue", "text.wav"), "text.wav: is broken or not audio"),
        (("continue", "empty.wav"), "empty.wav: holds no samples; give a file with sound"),
        (("continue", "enormous.flac"), "enormous.flac: is too large (250 minutes"),
        (("continue", "song.wav", "--sections", "verse:0-1"), "ends within the 2 s of the audio prompt"),
        (("reconstruct", "text.wav", "-o", "y.wav"), "text.wav: is broken or not audio"),
        (("reconstruct", "song.wav", "-o", "y.txt"), "y.txt: unknown extension '.txt'"),
        (("upscale", "absent.wav", "-o", "y.wav"), "absent.wav: does not exist"),
    ],
)
def test_before_a_model_is_loaded(run, song: Path, tmp_path: Path, arguments, message: str) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros((0, 1)), 24_000)
    soundfile.write(tmp_path / "enormous.flac", np.zeros(15_000, np.int16), 1)
    before = sorted(tmp_path.iterdir())
    refused(run(*arguments), message)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short.wav", "the audio lasts 0.2 s; give at least 1 s"),
        ("silent.wav", "the audio is silent (no sample above -80 dBFS); give a recording with sound"),
    ],
)
@pytest.mark.parametrize("command", [("continue",), ("reconstruct", "-o", "y.wav"), ("upscale", "-o", "y.wav")])
def test_audio_without_music(run, tiny: Path, tmp_path: Path, command, name: str, message: str) -> None:
    soundfile.write(tmp_path / "short.wav", 0.5 * np.ones(4_800), 24_000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(48_000), 24_000)
    refused(run(*command, name, "--model", tiny), message)
    assert len(list(tmp_path.iterdir())) == 2


def test_upscaling_what_has_its_highs(run, song: Path, tiny: Path) -> None:
    outcome = run("upscale", song, "-o", "y.wav", "--model", tiny)
    refused(outcome, "the audio has 44100 Hz already; upscale takes 24000 Hz or less")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there(run, tiny: Path, device: str, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    refused(run(*TEXT, "--model", tiny, "--device", device), f"device '{device}': not available to torch")
