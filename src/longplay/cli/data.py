"""`longplay data`: the corpus to train on, and what its licences ask for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from longplay.cli import options
from longplay.cli.packages import need
from longplay.cli.progress import stage_bars

if TYPE_CHECKING:
    from longplay.address import Location
    from longplay.data.store import Corpus

app = typer.Typer(help="Build the music to train on.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Build the music to train on."""


@app.command()
def build(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of audio, a .jsonl or .csv manifest, or a folder with wav.scp and text; a path, or an address such "
            "as s3://bucket/music."
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(help="Folder of the corpus, a path or an address; one that is there is brought up to date."),
    ],
    valid: Annotated[float, typer.Option(min=0, max=1, help="Share to validate on.")] = 0.05,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share to test on.")] = 0.05,
    group_by: Annotated[
        Literal["album", "artist", "folder", "file"],
        typer.Option(help="Kept in one split, unless all are too large for it: album, artist, folder or file."),
    ] = "album",
    min_seconds: Annotated[float, typer.Option(min=1, help="Shorter recordings are left out.")] = 10.0,
    drop: Annotated[str, typer.Option(help="Leave out what has these flags, e.g. clipping,dropouts.")] = "",
    reference: Annotated[bool, typer.Option("--reference", help="Keep the audio where it is, as it is.")] = False,
    tags: Annotated[bool, typer.Option(help="Let musicnn (fetched once) hear styles, instruments and moods.")] = True,
    plots: Annotated[bool, typer.Option(help="Draw report.png.")] = True,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, default one for each core; or actors of a cluster.")
    ] = None,
    cluster: options.ClusterOption = None,
) -> None:
    """Prepare your own recordings: decode, check, measure, describe, split; with a report of what came in.

    Beside song.flac, song.txt may hold captions (one a line) and song.json captions, sections, title, author, licence,
    genre, bpm, key, instruments, split, group.
    """
    import os

    if plots:
        need(("matplotlib",), "report.png", "train", ", or do without: --no-plots")
    if cluster is not None and workers is None:
        raise typer.BadParameter("--cluster ray: say how many actors, with --workers N")
    from longplay.address import location
    from longplay.data import build as building
    from longplay.data.cluster import run_on_ray
    from longplay.data.report import write_report
    from longplay.data.workers import run_jobs

    flags = [flag.strip() for flag in drop.split(",") if flag.strip()]
    music, corpus = location(source), location(out)
    if cluster is not None:  # other machines have other working directories
        music, corpus = music.resolve(), corpus.resolve()
    with stage_bars("prepare", "hear") as progress:
        built = building.build(
            music,
            corpus,
            valid,
            test,
            group_by,
            min_seconds,
            flags,
            reference,
            tags,
            workers or os.cpu_count() or 1,
            progress,
            run_jobs if cluster is None else run_on_ray,
        )
    write_report(corpus, built, plots)
    _summarize(corpus, built.corpus)
    typer.echo(f"report: {corpus / 'report.md'}")


@app.command()
def caption(
    manifest: Annotated[Path, typer.Argument(help="Manifest of a corpus.")],
    model: Annotated[str, typer.Option(help="Name of the language model at the endpoint.")],
    endpoint: Annotated[
        str | None, typer.Option(help="Base address, e.g. http://localhost:8000/v1; default: OpenAI's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New manifest beside the old one; default: captioned.jsonl.")] = None,
    count: Annotated[int, typer.Option(min=1, max=10, help="Captions for each track.")] = 3,
    replace: Annotated[bool, typer.Option("--replace", help="Do not keep the captions that are there.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 8,
    input_price: Annotated[float, typer.Option(min=0, help="Of a million tokens in, for the sum at the end.")] = 0.0,
    output_price: Annotated[float, typer.Option(min=0, help="Of a million tokens out.")] = 0.0,
) -> None:
    """Let a language model write captions from the facts of each track, through any OpenAI-compatible endpoint.

    The key is OPENAI_API_KEY of the environment. Answers are kept in captions-cache beside the manifest: a run that was
    stopped goes on, and pays for nothing twice.
    """
    from longplay.data.language_model import LanguageModel
    from longplay.data.written import write_captions

    asked = LanguageModel(endpoint, model, manifest.parent / "captions-cache")
    target = out or manifest.with_name("captioned.jsonl")
    try:
        with stage_bars("caption") as progress:
            written = write_captions(manifest, target, asked, count, not replace, workers, progress)
    finally:
        used = asked.usage
        cost = f", {used.cost(input_price, output_price):.4f} spent" if input_price or output_price else ""
        typer.echo(
            f"{used.requests} requests ({used.retries} again), {used.cached} answers from the cache, "
            f"{used.input_tokens} tokens in, {used.output_tokens} out{cost}"
        )
    for name, reason in sorted(written.refused.items()):
        typer.echo(f"{name}: kept its captions, {reason}", err=True)
    typer.echo(f"{target}: {written.tracks} tracks with new captions, {len(written.refused)} without")


@app.command()
def label(
    manifest: Annotated[Path, typer.Argument(help="Manifest of a corpus.")],
    out: Annotated[Path | None, typer.Option(help="Labels; default: labels.jsonl beside the manifest.")] = None,
    split: Annotated[Literal["train", "valid", "test", "all"], typer.Option(help="Which tracks to listen to.")] = "all",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page.")] = 7860,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """A page to listen, rate, and correct captions and sections; its file is what `train tokens --labels` takes."""
    from longplay.data.label_page import serve
    from longplay.data.labels import LABELS
    from longplay.data.manifest import read_manifest

    tracks = [track for track in read_manifest(manifest) if split in ("all", track.split)]
    serve(tracks, manifest.parent, out or manifest.with_name(LABELS), port, open_browser)


@app.command()
def structure(
    file: Annotated[Path, typer.Argument(help="An audio file.")],
    plot: Annotated[
        Path | None, typer.Option(help="Draw likeness, novelty and sections to this .png, .pdf or .svg.")
    ] = None,
) -> None:
    """Find tempo, key, sections and their chords in a recording; the last line can be given to `generate --sections` or a sidecar."""
    from longplay.analysis.measure import analyse
    from longplay.chords import NO_CHORD, spans, untimed
    from longplay.data.decode import read_mono
    from longplay.data.structure_plot import plot_structure

    wav, rate = read_mono(file)
    if len(wav) < rate:
        raise typer.BadParameter(f"{file}: lasts less than a second")
    facts, found = analyse(wav, rate)
    typer.echo(f"{f'{facts.bpm:g} bpm' if facts.bpm else 'no clear pulse'}, {facts.key or 'no clear key'}")
    chords = list(spans(untimed(facts.chords), facts.seconds))
    for section, group in zip(found.sections, found.groups, strict=True):
        names = [str(chord or NO_CHORD) for start, end, chord in chords if start < section.end and end > section.start]
        about = f"{section.label:7} {chr(ord('A') + group % 26)}  {' '.join(names)}"
        typer.echo(f"{section.start:8.2f} - {section.end:8.2f}  {about.rstrip()}")
    typer.echo(",".join(map(str, found.sections)) or "too short for sections")
    if plot is not None:
        plot_structure(found, facts.seconds, file.stem, plot)


@app.command()
def accuracy(
    manifest: Annotated[Path, typer.Argument(help="Manifest of a corpus with rendered pieces.")],
    skip: Annotated[int, typer.Option(min=0, help="Leave out the first rendered pieces.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="How many pieces to listen to.")] = 20,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Measure how well sections, tempo, key and chords are found, on rendered pieces in which they are known."""
    from longplay.data.accuracy import EXCERPT_SECONDS, benchmark
    from longplay.data.manifest import read_manifest

    rendered = [track for track in read_manifest(manifest) if track.kind == "rendered"][skip : skip + count]
    found = benchmark(rendered, manifest.parent, workers)
    typer.echo(f"{'sections':14} {'F1 0.5 s':>9} {'F1 3 s':>9} {'labels':>9}")
    for name, mean in found.sections.items():
        typer.echo(f"{name:14} {mean.fine:9.3f} {mean.coarse:9.3f} {mean.labels:9.3f}")
    heard = found.hearing
    typer.echo(
        f"right: tempo {heard.tempo:.0%}, key {heard.key:.0%} (of {EXCERPT_SECONDS:g} s: {heard.key_of_excerpt:.0%}), "
        f"chords {heard.chords:.0%} of the time"
    )
    typer.echo(f"{found.pieces} pieces: {rendered[0].id} to {rendered[-1].id}")


@app.command()
def corpus(
    out: Annotated[Path, typer.Argument(help="Directory of the corpus; a build that is there goes on.")],
    quick: Annotated[bool, typer.Option("--quick", help="Seven packages (420 MB) instead of all (5 GB).")] = False,
    rendered_hours: Annotated[float, typer.Option(min=0, help="Hours of music rendered from notes besides.")] = 0.0,
    tags: Annotated[bool, typer.Option(help="Let musicnn (fetched once) hear styles, instruments and moods.")] = True,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Download, decode, measure and describe free music from Debian packages, and render more with exact labels."""
    from longplay.data.corpus import build_corpus
    from longplay.data.sources import QUICK_PACKAGES

    with stage_bars("extract", "decode", "hear", "render") as progress:
        built = build_corpus(out, QUICK_PACKAGES if quick else None, rendered_hours, workers, progress, tags=tags)
    _summarize(out, built)


@app.command()
def attribution(
    manifest: Annotated[Path, typer.Argument(help="Manifest of a corpus.")],
    out: Annotated[Path, typer.Argument(help="Markdown file to write, e.g. ATTRIBUTION.md.")],
) -> None:
    """Name every work of the training split, with author and licence."""
    from longplay.data.attribution import attribution as text
    from longplay.data.manifest import read_manifest
    from longplay.files import write_text

    write_text(out, text(read_manifest(manifest)))


def _summarize(out: "Location", built: "Corpus") -> None:
    for split in ("train", "valid", "test"):
        chosen = [track for track in built.tracks if track.split == split]
        typer.echo(f"{split}: {len(chosen)} tracks, {sum(track.seconds for track in chosen) / 3600:.2f} h")
    typer.echo(f"dropped: {len(built.dropped)} (see {out / 'dropped.jsonl'})")
