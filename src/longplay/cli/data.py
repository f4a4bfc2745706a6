"""`longplay data`: the corpus to train on, and what its licences ask for."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Build the music to train on.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Build the music to train on."""


@app.command()
def corpus(
    out: Annotated[Path, typer.Argument(help="Directory of the corpus; a build that is there goes on.")],
    quick: Annotated[bool, typer.Option("--quick", help="Five packages (380 MB) instead of all (5 GB).")] = False,
    rendered_hours: Annotated[float, typer.Option(min=0, help="Hours of music rendered from notes besides.")] = 0.0,
    tags: Annotated[bool, typer.Option(help="Let musicnn (fetched once) hear styles, instruments and moods.")] = True,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Download, decode, measure and describe free music from Debian packages, and render more with exact labels."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from longplay.data.corpus import build_corpus
    from longplay.data.sources import QUICK_PACKAGES

    columns = (TextColumn("{task.description:8}"), BarColumn(), TextColumn("{task.completed:.6g}/{task.total:.6g}"))
    with Progress(*columns, TimeRemainingColumn()) as bar:
        tasks = {
            stage: bar.add_task(stage, total=None, visible=False) for stage in ("extract", "decode", "hear", "render")
        }
        built = build_corpus(
            out,
            QUICK_PACKAGES if quick else None,
            rendered_hours,
            workers,
            lambda stage, done, total: bar.update(tasks[stage], completed=done, total=total, visible=True),
            tags=tags,
        )
    for split in ("train", "valid", "test"):
        chosen = [track for track in built.tracks if track.split == split]
        typer.echo(f"{split}: {len(chosen)} tracks, {sum(track.seconds for track in chosen) / 3600:.2f} h")
    typer.echo(f"dropped: {len(built.dropped)} (see {out / 'dropped.jsonl'})")


@app.command()
def attribution(
    manifest: Annotated[Path, typer.Argument(help="Manifest of a corpus.")],
    out: Annotated[Path, typer.Argument(help="Markdown file to write, e.g. ATTRIBUTION.md.")],
) -> None:
    """Name every work of the training split, with author and licence."""
    from longplay.data.attribution import attribution as text
    from longplay.data.manifest import read_manifest, write_text

    write_text(out, text(read_manifest(manifest)))
