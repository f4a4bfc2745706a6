"""The page of `longplay data label`: listen, rate, correct the caption and the sections, go on; saved at every step.

`Listening` holds what the page does, without the page: the tracks, the labels, and where the listener is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from longplay.data.labels import TrackLabel, checked_sections, read_labels, write_labels
from longplay.data.manifest import Track
from longplay.errors import UserError
from longplay.prompt import LABELS, Section

ONE_AFTER_ANOTHER = "labels"  # what saves: leaving a field for a button does two things at once
COLUMNS = ("label", "start", "end")
Rows = list[list[Any]]  # of the table of sections: label, start, end


class Shown(NamedTuple):
    """What stands on the page for one track."""

    heading: str
    audio: str
    rating: int | None
    caption: str
    sections: Rows


class Listening:
    """Tracks to judge, and the labels given so far, which are saved each time.

    Args:
        tracks: in the order in which they are heard.
        folder: of their manifest.
        path: of the labels; what is there is gone on with.

    Raises:
        UserError: there is no track.
        ConfigError: the labels that are there are damaged.
    """

    def __init__(self, tracks: Sequence[Track], folder: Path, path: Path) -> None:
        if not tracks:
            raise UserError("no track to listen to; give another manifest or --split all")
        self.tracks, self.folder, self.path = list(tracks), folder, path
        self.labels = read_labels(path) if path.exists() else {}

    @property
    def first(self) -> int:
        """The first track without a label; the last one where all have one."""
        unheard = [place for place, track in enumerate(self.tracks) if track.id not in self.labels]
        return unheard[0] if unheard else len(self.tracks) - 1

    def show(self, place: int) -> Shown:
        """A track as it is labelled so far."""
        track = self.tracks[place]
        label = self.labels.get(track.id)
        done = sum(track.id in self.labels for track in self.tracks)
        sections = track.sections if label is None or label.sections is None else label.sections
        caption = label.caption if label is not None and label.caption else (track.captions or ("",))[0]
        return Shown(
            heading=f"{place + 1} of {len(self.tracks)} ({done} labelled): {track.title}, {track.seconds:.1f} s",
            audio=str((self.folder / track.path).resolve()),
            rating=None if label is None else label.rating,
            caption=caption,
            sections=[[section.label, section.start, section.end] for section in sections],
        )

    def save(self, place: int, rating: int | None, caption: str, rows: Rows) -> bool:
        """Keep what the page says of a track, in the file too; False where it has no rating, and nothing is kept.

        Only what differs from the manifest is kept: an untouched caption leaves a track all the captions that it has.

        Raises:
            UserError: a section that is none, beyond the end, or overlapping, or a file that cannot be written; nothing is
                kept then.
        """
        track = self.tracks[place]
        sections = read_rows(rows, track.seconds)
        if rating is None:
            return False
        words = " ".join(caption.split())
        label = TrackLabel(
            id=track.id,
            rating=int(rating),
            caption="" if words == (track.captions or ("",))[0] else words,
            sections=None if sections == track.sections else sections,
        )
        if self.labels.get(track.id) != label:
            labels = self.labels | {track.id: label}
            write_labels(self.path, labels)
            self.labels = labels
        return True

    def step(self, place: int, by: int) -> int:
        """The place `by` tracks further, inside the list."""
        return max(0, min(len(self.tracks) - 1, place + by))


def read_rows(rows: Rows, seconds: float) -> tuple[Section, ...]:
    """Sections from the rows of a table; empty rows do not count.

    Raises:
        UserError: naming the row and what is wrong with it.
    """
    sections = []
    for number, row in enumerate(rows, 1):
        cells = ["" if cell is None else str(cell).strip() for cell in row[:3]]
        if not any(cells):
            continue
        label, start, end = (*cells, "", "", "")[:3]
        found = next((known for known in LABELS if known == label.lower()), None)
        if found is None:
            raise UserError(f"row {number}: label {label!r}; use one of {', '.join(LABELS)}")
        try:
            times = float(start), float(end)
        except ValueError:
            raise UserError(f"row {number}: {start!r} to {end!r} are no seconds") from None
        try:
            sections.append(Section(label=found, start=times[0], end=times[1]))
        except UserError as error:
            raise UserError(f"row {number}: {error}") from None
    return checked_sections(sections, seconds)


def build_page(listening: Listening) -> Any:
    """The page, as `gradio.Blocks`.

    Raises:
        UserError: Gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError:
        raise UserError("the page needs Gradio: `pip install 'longplay[label]'`") from None

    with gr.Blocks(title="Longplay: label", analytics_enabled=False) as page:
        # Not a `gr.State`: that is kept by the server, and would change before what is shown does.
        place = gr.Number(0, precision=0, visible="hidden")
        heading = gr.Markdown()
        audio = gr.Audio(type="filepath", interactive=False, label="Listen")
        rating = gr.Radio([1, 2, 3, 4, 5], label="Rating: 1 not to be learnt from, 5 just right")
        caption = gr.Textbox(label="Caption", lines=2)
        sections = gr.Dataframe(
            headers=list(COLUMNS), datatype=["str", "number", "number"], type="array", interactive=True,
            label=f"Sections ({', '.join(LABELS)}; seconds)",
        )  # fmt: skip
        message = gr.Markdown()
        with gr.Row():
            back, on = gr.Button("Previous"), gr.Button("Save and next", variant="primary")
        fields = [heading, audio, rating, caption, sections]

        def move(at: int, by: int, stars: int | None, words: str, rows: Rows) -> list[Any]:
            try:
                saved = listening.save(at, stars, words, rows)
            except UserError as error:  # the listener stays where the mistake is
                return [at, f"**{error}**", heading_of(at), *[gr.skip()] * 4]
            there, *shown = arrive(listening.step(at, by))
            return [there, f"saved in {listening.path.name}" if saved else "not saved: it has no rating", *shown]

        def arrive(at: int) -> list[Any]:
            return [at, *listening.show(at)]

        def heading_of(at: int) -> str:
            return listening.show(at).heading

        def keep(at: int, stars: int | None, words: str, rows: Rows) -> str:
            try:
                saved = listening.save(at, stars, words, rows)
            except UserError as error:
                return f"**{error}**"
            return f"saved; {len(listening.labels)} labelled" if saved else "give a rating to save it"

        given = [place, rating, caption, sections]
        page.load(lambda: arrive(listening.first), None, [place, *fields])
        for button, by in ((back, -1), (on, 1)):
            button.click(
                lambda at, stars, words, rows, by=by: move(at, by, stars, words, rows),
                given,
                [place, message, *fields],
                concurrency_id=ONE_AFTER_ANOTHER,
            )
        # Typing and choosing save at once; `input` is the listener's own doing. A text box tells of it before it holds the newest
        # letter, so leaving it saves, too; the last of several events that come while one is saved is not lost.
        own_doing = [rating.input, caption.input, caption.blur, caption.submit, sections.input]
        gr.on(own_doing, keep, given, [message], trigger_mode="always_last", concurrency_id=ONE_AFTER_ANOTHER)
    return page


def serve(tracks: Sequence[Track], folder: Path, path: Path, port: int, open_browser: bool) -> None:
    """Serve the page on this machine until interrupted.

    Raises:
        UserError: no track, no Gradio, or the port is taken.
    """
    page = build_page(Listening(tracks, folder, path))
    places = {str((folder / track.path).resolve().parent) for track in tracks}
    try:
        page.launch(
            server_name="127.0.0.1", server_port=port or None, inbrowser=open_browser, allowed_paths=sorted(places)
        )
    except OSError as error:
        raise UserError(f"port {port}: {error}; give another --port") from None
