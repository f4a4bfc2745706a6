from longplay.models.segments import REFERENCE_CLI_IDS, Segment, window_segments
from longplay.prompt import Section

SECTIONS = (
    Section(label="intro", start=0, end=10),
    Section(label="verse", start=10, end=30),
    Section(label="chorus", start=30, end=50),
)


def test_sections_are_cut_to_the_window_and_keep_their_times() -> None:
    assert window_segments(SECTIONS, 5.0, 32.0, unlabelled=9) == (
        Segment(5, 10, 0),
        Segment(10, 30, 2),
        Segment(30, 32, 1),
    )


def test_a_section_that_only_touches_the_window_is_outside() -> None:
    assert window_segments(SECTIONS, 10.0, 30.0, unlabelled=9) == (Segment(10, 30, 2),)


def test_a_window_without_sections_is_one_unlabelled_segment() -> None:
    assert window_segments(SECTIONS, 50.0, 60.0, unlabelled=9) == (Segment(50, 60, 9),)
    assert window_segments((), 0.0, 15.0, unlabelled=9) == (Segment(0, 15, 9),)


def test_the_reference_command_line_swaps_verse_and_chorus() -> None:
    labels = [segment.label for segment in window_segments(SECTIONS, 0.0, 50.0, 9, REFERENCE_CLI_IDS)]
    assert labels == [0, 1, 2]
