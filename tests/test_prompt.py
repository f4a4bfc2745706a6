"""Prompt and options: what is allowed, what is refused and in which words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longplay import GenerationOptions, Prompt, Section
from longplay.errors import PromptError
from longplay.keys import Key
from longplay.prompt import LABELS, parse_sections


def test_sections_are_read_as_the_command_line_writes_them() -> None:
    sections = parse_sections("intro:0-15, verse:15-60,chorus:60.5-75")
    assert [str(section) for section in sections] == ["intro:0-15", "verse:15-60", "chorus:60.5-75"]
    assert Prompt(text="x", sections=sections).sections[2].start == 60.5
    assert parse_sections(" ") == ()


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.floats(0.5, 50), st.floats(0, 50)), max_size=6))
def test_any_ordered_sections_survive_text_and_json(items: list[tuple[str, float, float]]) -> None:
    sections, now = [], 0.0
    for label, length, gap in items:
        start, end = round(now + gap, 2), round(now + gap + length, 2)
        sections.append(Section(label=label, start=start, end=end))
        now = end
    prompt = Prompt(text="x", sections=tuple(sections))
    if sections:
        assert parse_sections(",".join(map(str, sections))) == prompt.sections
    assert Prompt.parse(prompt.dump()) == prompt


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bridge:0-5", r"section 'bridge:0-5': unknown label 'bridge'; use one of intro, verse, chorus, outro"),
        ("intro", r"section 'intro': expected label:start-end"),
        ("intro:5", r"section 'intro:5': expected label:start-end"),
        ("intro:9-5", r"section 'intro:9-5': expected .* 0 <= start < end <= 7200 seconds, e.g. verse:15-60"),
        ("intro:-3-5", r"section 'intro:-3-5': expected"),
        ("intro:0-nan", r"section 'intro:0-nan': expected"),
        ("intro:0-99999", r"section 'intro:0-99999': expected"),
        ("intro:0-5,,", r"section '': unknown label ''"),
    ],
)
def test_malformed_sections_are_refused(text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        parse_sections(text)


@pytest.mark.parametrize("sections", ["intro:0-15,verse:10-20", "verse:15-20,intro:0-15"])
def test_overlapping_sections_are_refused(sections: str) -> None:
    with pytest.raises(PromptError, match=r"overlap or are out of order; let each start after the last ends"):
        Prompt(text="x", sections=parse_sections(sections))


def test_an_enormous_text_is_refused_without_being_repeated() -> None:
    with pytest.raises(PromptError, match="5000 characters are too many; use at most 4000") as caught:
        Prompt(text="a" * 5000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_text_is_refused_where_it_is_needed(text: str) -> None:
    with pytest.raises(PromptError, match="the prompt is empty; describe the music"):
        Prompt(text=text).require_text()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seconds", -5, "seconds = -5: must be greater than 0"),
        ("seconds", 0, "seconds = 0: must be greater than 0"),
        ("seconds", 8000, "seconds = 8000: must be less than or equal to 7200"),
        ("seconds", float("nan"), "seconds = nan: must be a finite number"),
        ("guidance", -1, "guidance = -1: must be greater than or equal to 0"),
        ("temperature", -0.1, "temperature = -0.1"),
        ("top_k", -1, "top_k = -1"),
        ("top_p", 0, "top_p = 0: must be greater than 0"),
        ("top_p", 1.5, "top_p = 1.5: must be less than or equal to 1"),
        ("num_steps", 0, "num_steps = 0"),
        ("seed", -1, "seed = -1"),
        ("compatibility", "old", "compatibility = 'old': must be 'none' or 'reference'"),
        ("top_q", 1, "unknown key 'top_q'; remove it or check its spelling"),
    ],
)
def test_options_out_of_range_are_refused_by_name(name: str, value: object, message: str) -> None:
    with pytest.raises(PromptError) as caught:
        GenerationOptions(**{name: value})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_section_inside_a_prompt_is_the_same_error() -> None:
    with pytest.raises(PromptError, match="label = 'bridge'"):
        Prompt.parse({"text": "x", "sections": [{"label": "bridge", "start": 0, "end": 1}]})


def test_duration_comes_from_seconds_then_sections_then_30() -> None:
    plain = Prompt(text="x")
    labelled = Prompt(text="x", sections=parse_sections("intro:10-15,verse:15-60"))
    assert GenerationOptions().settle(plain).seconds == 30
    assert GenerationOptions().settle(labelled).seconds == 50
    assert GenerationOptions(seconds=70).settle(labelled).seconds == 70
    with pytest.raises(PromptError, match="the sections last 50 s, but seconds is 20; ask for 50 s"):
        GenerationOptions(seconds=20).settle(labelled)


def test_a_seed_is_drawn_only_if_none_is_given() -> None:
    assert GenerationOptions(seed=5).settle(Prompt()).seed == 5
    drawn = {GenerationOptions().settle(Prompt()).seed for _ in range(5)}
    assert len(drawn) == 5
    assert all(0 <= seed < 2**31 for seed in drawn)


def test_settled_options_keep_the_rest() -> None:
    options = GenerationOptions(guidance=2.0, fast=True, top_p=0.9)
    settled = options.settle(Prompt())
    assert settled.dump() == {**options.dump(), "seconds": 30.0, "seed": settled.seed}


def test_sections_of_a_continuation_count_from_the_start_of_the_recording() -> None:
    prompt = Prompt(sections=parse_sections("verse:0-20,chorus:20-45"))
    assert GenerationOptions().settle(prompt, after=12).seconds == 33
    with pytest.raises(PromptError, match="the last section, chorus:20-45, ends within the 50 s of the audio prompt"):
        GenerationOptions().settle(prompt, after=50)


def test_tempo_and_key_are_those_of_the_words_or_the_numbers() -> None:
    words = Prompt(text="techno, 130 bpm, A minor").control
    assert words is not None
    assert (words.bpm, words.key, words.beats) == (pytest.approx(130), Key(9, "minor"), 4)
    assert Prompt(text="techno", bpm=130, key="a minor").control == words
    assert Prompt(text="techno").control is None
    waltz = Prompt(text="a waltz", bpm=90).control
    assert waltz is not None
    assert (waltz.bpm, waltz.beats, waltz.key) == (pytest.approx(90), 3, None)
    impossible = Prompt(text="a hit of 9000 bpm").control
    assert impossible is None


def test_chords_are_read_and_spelt_one_way() -> None:
    prompt = Prompt(text="pop", chords="| Amin | F | Cmaj7 | G7 |")
    assert prompt.chords == "Am F CM7 G7"
    assert [str(chord) for chord in prompt.progression] == ["Am", "F", "CM7", "G7"]
    assert Prompt(text="pop").progression == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bpm": 10}, "bpm = 10: must be greater than or equal to 30"),
        ({"bpm": 999}, "bpm = 999: must be less than or equal to 300"),
        ({"text": "120 bpm", "bpm": 90}, "bpm is 90, but the text says 120 bpm; leave one of them out"),
        ({"key": "H dur"}, "key 'H dur': expected a form like 'F# minor' or 'F#m'"),
        ({"text": "in C minor", "key": "C major"}, "key is C major, but the text says C minor; leave one of them out"),
    ],
)
def test_tempos_and_keys_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError) as caught:
        Prompt(**given)
    assert message in str(caught.value)
