import json
import shutil
from pathlib import Path

import pytest
import soundfile

from longplay.analysis.measure import measure
from longplay.data.render import find_fonts, render
from longplay.data.score import Score, compose, styles
from longplay.errors import LongplayError, UserError

needs_tools = pytest.mark.skipif(
    shutil.which("mma") is None or shutil.which("fluidsynth") is None, reason="needs mma and fluidsynth"
)


def short(score: Score) -> Score:
    """Its intro and its last bars only."""
    return score.model_copy(update={"parts": (score.parts[0], score.parts[1], score.parts[-1])})


def fonts() -> list[Path]:
    try:
        return find_fonts([Path("/")])
    except UserError as error:
        pytest.skip(str(error))


@needs_tools
def test_a_rendered_piece_is_what_its_labels_say(tmp_path: Path) -> None:
    choice = [style for style in styles() if style.genre == "fifties rock and roll"]
    score = short(compose(11, choice))
    track = render(score, fonts()[:1], tmp_path)
    wav, rate = soundfile.read(tmp_path / track.path, dtype="float32")
    assert rate == 48000
    assert len(wav) / rate == pytest.approx(track.seconds, abs=0.01)
    assert score.seconds - score.bar_seconds < track.seconds < score.seconds + 4.1
    assert track.sections[-1].end == pytest.approx(track.seconds, abs=0.01)
    assert track.bpm == score.bpm
    assert measure(wav, rate).bpm == pytest.approx(score.bpm, rel=0.03)
    assert "drums" in track.instruments
    assert track.split == "train"
    assert json.loads((tmp_path / "rendered" / f"{track.id}.json").read_text())["key"] == score.key


@needs_tools
def test_what_mma_cannot_play_is_named(tmp_path: Path) -> None:
    score = short(compose(11, styles()))
    broken = score.model_copy(update={"style": score.style.model_copy(update={"library": "stdlib/nothing"})})
    with pytest.raises(LongplayError, match="seed 11 .*: mma failed"):
        render(broken, fonts(), tmp_path)


def test_no_font_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fluid-soundfont-gm"):
        find_fonts([tmp_path])
