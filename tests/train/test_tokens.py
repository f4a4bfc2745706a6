import io
import json
import multiprocessing
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import soxr
import torch

from longplay.chords import Chord, TimedChord
from longplay.control import Control
from longplay.data.labels import TrackLabel, apply_labels
from longplay.data.manifest import Passage, Track, read_manifest, write_manifest
from longplay.data.token_tracks import read_token_tracks
from longplay.data.token_windows import TokenWindows
from longplay.data.varispeed import with_varispeed
from longplay.engine import encode as engine_encode
from longplay.errors import TrainingError, UserError
from longplay.keys import Key
from longplay.models.codec import Codec, CodecConfig
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.prompt import Section
from longplay.train import encoding, tokens
from longplay.train.encoding import Encoder, Job, encode_here, encode_in_processes
from systems import save_tiny

SPECTRAL = {"kind": "spectral", "n_fft": 64, "dim": 8, "intermediate_dim": 12, "num_layers": 1}
RATE = 8000
HOP = 32


@pytest.fixture(scope="module")
def models() -> tuple[Tokenizer, Codec]:
    torch.manual_seed(0)
    book = {"size": 32, "dim": 4, "ema": False}
    tokenizer = TokenizerConfig.parse(
        {
            "sample_rate": RATE // 2,
            "hop_length": HOP,
            "latent_dim": 4,
            "codebook": book,
            "encoder": SPECTRAL,
            "decoder": SPECTRAL,
        }
    )
    codec = CodecConfig.parse(
        {
            "sample_rate": RATE,
            "hop_length": HOP,
            "quantizer": {"codebook": book},
            "encoder": SPECTRAL,
            "decoder": SPECTRAL,
        }
    )
    pair = Tokenizer(tokenizer).eval(), Codec(codec).eval()
    for parameter in [*pair[0].codebook.parameters(), *pair[1].quantizer.parameters()]:
        torch.nn.init.normal_(parameter)
    return pair


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    tracks = []
    for index in range(5):
        wav = np.random.default_rng(index).standard_normal(RATE * 2 + 7 * index).astype(np.float32) * 0.1
        sf.write(tmp_path / f"t{index}.wav", wav, RATE)
        tracks.append(
            Track(
                id=f"t{index}", path=f"t{index}.wav", seconds=len(wav) / RATE, split="valid" if index == 4 else "train",
                kind="real", title="t", source="s", licence="CC0", codec_ok=True, captions=("a", "b"),
                sections=(Section(label="intro", start=0, end=1), Section(label="verse", start=1, end=2)),
            )
        )  # fmt: skip
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, tracks)
    return path


def test_a_track_at_another_speed_has_the_codes_of_the_resampled_audio(
    manifest: Path, tmp_path: Path, models: Any
) -> None:
    encoder = Encoder(*models)
    tokens.prepare_tokens(manifest, tmp_path / "out", encode_here(encoder), lambda tracks: with_varispeed(tracks, [5]))
    rows = {row["utt"]: row for row in pq.read_table(tmp_path / "out").to_pylist()}
    assert len(rows) == 9  # the one of the held-out split is not changed
    row, speed = rows["t0@+5"], 2 ** (5 / 12)
    assert row["time_end"] == pytest.approx(2 / speed)
    assert row["split"] == "train"
    wav, _ = sf.read(tmp_path / "t0.wav", dtype="float32")
    sf.write(tmp_path / "fast.wav", soxr.resample(wav, RATE * speed, RATE, quality="HQ"), RATE, subtype="FLOAT")
    expected = encoder(Job("fast", str(tmp_path), "fast.wav", 2 / speed))
    assert len(row["semantic_token"][0]) == expected.semantic.shape[1]
    same = np.array(row["semantic_token"]) == expected.semantic
    assert same.mean() > 0.9  # resampled once here, twice there


def test_shards_hold_exactly_what_the_models_encode(manifest: Path, tmp_path: Path, models: Any) -> None:
    assert tokens.prepare_tokens(manifest, tmp_path / "tokens", encode_here(Encoder(*models))).tracks == 5
    track = read_token_tracks(tmp_path / "tokens", "train")[1]
    wav = torch.from_numpy(sf.read(tmp_path / "t1.wav", dtype="float32")[0]).view(1, 1, -1)
    with torch.inference_mode():
        assert torch.equal(torch.from_numpy(track.acoustic.astype(np.int64)), models[1].encode(wav)[0])
    assert track.captions == ("a", "b")
    assert [section.label for section in track.sections] == ["intro", "verse"]
    assert len(track.semantic) == -(-len(wav[0, 0]) // 2 // HOP)


def test_shards_say_what_is_heard_in_a_passage(manifest: Path, tmp_path: Path, models: Any) -> None:
    encoder = Encoder(*models)
    tokens.prepare_tokens(manifest, tmp_path / "tokens", encode_here(encoder))
    assert not any(track.passages for track in read_token_tracks(tmp_path / "tokens", "train"))
    for path in sorted((tmp_path / "tokens").iterdir()):  # as an earlier version wrote it
        pq.write_table(pq.read_table(path).drop_columns(["passages", "passage_starts", "passage_styles"]), path)
    first, second = (Passage(start=n, end=n + 1, captions=(f"{n}", f"part {n}"), style=(0.25 * n, -n)) for n in (0, 1))
    heard = [
        track.model_copy(update={"passages": (first, second), "offset": 12.0}) for track in read_manifest(manifest)
    ]
    write_manifest(manifest, heard)
    assert tokens.prepare_tokens(manifest, tmp_path / "tokens", encode_here(encoder)).tracks == 0, "only words are new"
    for track in read_token_tracks(tmp_path / "tokens", "train"):
        half = pytest.approx(len(track.semantic) / 2, abs=1)
        assert track.passages == ((0, ("0", "part 0"), (0, 0)), (half, ("1", "part 1"), (0.25, -1)))
        assert track.captions_at(3) == ("a", "b", "0", "part 0")
        assert track.captions_at(len(track.semantic) - 1) == ("a", "b", "1", "part 1")


@pytest.mark.parametrize("overlap", [1, 5])
def test_windows_give_the_same_codes_as_the_whole(
    manifest: Path, tmp_path: Path, models: Any, monkeypatch: Any, overlap: int
) -> None:
    tokenizer, codec = models
    quantizer = codec.config.quantizer.model_copy(update={"overlap": overlap, "sweeps": 2})
    overlapping = Codec(codec.config.model_copy(update={"quantizer": quantizer})).eval()
    overlapping.load_state_dict(codec.state_dict())
    encoder = Encoder(tokenizer, overlapping)
    tokens.prepare_tokens(manifest, tmp_path / "whole", encode_here(encoder))
    monkeypatch.setattr(engine_encode, "WINDOW_SECONDS", 0.25)
    tokens.prepare_tokens(manifest, tmp_path / "windows", encode_here(encoder))
    for a, b in zip(*(read_token_tracks(tmp_path / name, "train") for name in ("whole", "windows")), strict=True):
        assert np.array_equal(a.semantic, b.semantic)
        assert np.array_equal(a.acoustic, b.acoustic)


def test_a_killed_run_goes_on_with_nothing_lost_or_doubled(
    manifest: Path, tmp_path: Path, models: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(tokens, "TRACKS_PER_SHARD", 2)
    encoder, calls = Encoder(*models), []

    def dies_on_the_fourth(job: Job) -> Any:
        calls.append(job.utt)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encoder(job)

    with pytest.raises(KeyboardInterrupt):
        tokens.prepare_tokens(manifest, tmp_path / "tokens", encode_here(dies_on_the_fourth))
    assert tokens.prepare_tokens(manifest, tmp_path / "tokens", encode_here(encoder)).tracks == 3
    tracks = [t for split in ("train", "valid") for t in read_token_tracks(tmp_path / "tokens", split)]
    assert sorted(track.utt for track in tracks) == ["t0", "t1", "t2", "t3", "t4"]


def test_windows_are_a_function_of_seed_and_index(manifest: Path, tmp_path: Path, models: Any) -> None:
    tokens.prepare_tokens(manifest, tmp_path / "tokens", encode_here(Encoder(*models)))
    windows = TokenWindows(read_token_tracks(tmp_path / "tokens", "train"), frames=50)
    first, again, other = windows.batch(1, 7, 8), windows.batch(1, 7, 8), windows.batch(1, 8, 8)
    assert [(w.track.utt, w.start, w.caption) for w in first] == [(w.track.utt, w.start, w.caption) for w in again]
    assert [(w.track.utt, w.start) for w in first] != [(w.track.utt, w.start) for w in other]
    drawn = [w for index in range(40) for w in windows.batch(0, index, 8)]
    assert {w.caption for w in drawn} == {"a", "b"}
    assert any(w.start == 0 for w in drawn)
    assert all(w.ends == (w.start + 50 == len(w.track.semantic)) for w in drawn)
    assert any(w.ends for w in drawn)
    assert all(np.array_equal(w.semantic, w.track.semantic[w.start : w.start + 50]) for w in drawn)


def test_where_nothing_can_be_written_is_said_before_the_work(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: is a file, not a folder"):
        tokens.prepare_tokens(manifest, tmp_path / "file", lambda jobs: pytest.fail("it is encoded"))


def test_what_is_missing_is_named(tmp_path: Path, manifest: Path, models: Any) -> None:
    with pytest.raises(TrainingError, match="holds no token shard"):
        read_token_tracks(tmp_path, "train")
    tokens.prepare_tokens(manifest, tmp_path / "tokens", encode_here(Encoder(*models)))
    with pytest.raises(TrainingError, match="no track of split 'test'"):
        read_token_tracks(tmp_path / "tokens", "test")
    with pytest.raises(TrainingError, match="none of 4 pieces has 9999 codes"):
        TokenWindows(read_token_tracks(tmp_path / "tokens", "train"), frames=9999)


@pytest.mark.parametrize("content", [b"", b"PAR1half"], ids=["empty", "cut"])
def test_a_damaged_shard_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "00000.parquet").write_bytes(content)
    with pytest.raises(TrainingError, match=r"00000.parquet: is no token shard .*; delete it"):
        read_token_tracks(tmp_path, "train")


def test_without_a_codec_there_are_codes_for_the_lm_alone(manifest: Path, tmp_path: Path, models: Any) -> None:
    tokens.prepare_tokens(manifest, tmp_path / "tokens", encode_here(Encoder(models[0], None)))
    tokens.prepare_tokens(manifest, tmp_path / "both", encode_here(Encoder(*models)))
    without, both = (read_token_tracks(tmp_path / name, "train")[0] for name in ("tokens", "both"))
    assert np.array_equal(without.semantic, both.semantic)
    assert without.acoustic.shape == (0, 0)


def test_new_captions_reach_old_shards_without_encoding_again(manifest: Path, tmp_path: Path, models: Any) -> None:
    def forbidden(job: Job) -> Any:
        raise AssertionError(f"{job.utt} is encoded again")

    tokens.prepare_tokens(manifest, tmp_path / "tokens", encode_here(Encoder(*models)))
    before = read_token_tracks(tmp_path / "tokens", "train")
    write_manifest(manifest, [track.model_copy(update={"captions": ("new",)}) for track in read_manifest(manifest)])
    assert tokens.prepare_tokens(manifest, tmp_path / "tokens", encode_here(forbidden)).tracks == 0
    after = read_token_tracks(tmp_path / "tokens", "train")
    assert {track.captions for track in after} == {("new",)}
    assert all(
        np.array_equal(a.semantic, b.semantic) and a.sections == b.sections for a, b in zip(before, after, strict=True)
    )


def test_bars_tempo_key_and_chords_reach_shards_of_an_older_version(
    manifest: Path, tmp_path: Path, models: Any
) -> None:
    tokens.prepare_tokens(manifest, tmp_path / "tokens", encode_here(Encoder(*models)))
    for shard in (tmp_path / "tokens").glob("*.parquet"):
        pq.write_table(pq.read_table(shard).drop_columns(["bars", "bpm", "key", "chords", "chord_starts"]), shard)
    older = read_token_tracks(tmp_path / "tokens", "train")
    assert {track.control for track in older} == {Control()}
    said = {
        "bars": (0.0, 0.5, 1.0),
        "bpm": 360.0,
        "key": "Eb minor",
        "chords": (TimedChord(start=0.5, name="Ab7"), TimedChord(start=0.8, name="N")),
        "offset": 2.0,
    }
    write_manifest(manifest, [track.model_copy(update=said) for track in read_manifest(manifest)])
    assert tokens.prepare_tokens(manifest, tmp_path / "tokens", encode_here(Encoder(*models))).tracks == 0
    after = read_token_tracks(tmp_path / "tokens", "train")
    assert {track.control for track in after} == {
        Control((2.0, 2.5, 3.0), 3, Key(3, "minor"), ((2.5, Chord(8, "7")), (2.8, None)))
    }
    assert all(np.array_equal(a.semantic, b.semantic) for a, b in zip(older, after, strict=True))


def rows(folder: Path) -> dict[str, list[Any]]:
    """Every row of the shards, by utt, with duplicates."""
    found: dict[str, list[Any]] = {}
    for shard in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(shard).to_pylist():
            found.setdefault(row["utt"], []).append(row)
    return found


def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    save_tiny(tmp_path / "model")
    write_manifest(tmp_path / "manifest.jsonl", [long_track(tmp_path, index) for index in range(8)])
    monkeypatch.setattr(tokens, "TRACKS_PER_SHARD", 2)
    here = encode_here(Encoder.load(str(tmp_path / "model"), str(tmp_path / "model")))
    tokens.prepare_tokens(tmp_path / "manifest.jsonl", tmp_path / "whole", here)

    killed: list[int] = []

    def kill_a_worker(manager: Any) -> Any:
        for outcome in manager:
            if not killed:
                victim = multiprocessing.active_children()[0]
                os.kill(victim.pid, signal.SIGKILL)
                killed.append(victim.pid)
            yield outcome

    processes = encode_in_processes(str(tmp_path / "model"), str(tmp_path / "model"), workers=1, threads=1)
    made = tokens.prepare_tokens(
        tmp_path / "manifest.jsonl", tmp_path / "tokens", lambda jobs: kill_a_worker(processes(jobs))
    )
    assert killed
    assert made.tracks == 8
    assert made.audio_seconds == pytest.approx(8 * 1.5)
    assert rows(tmp_path / "tokens").keys() == rows(tmp_path / "whole").keys()
    assert all(len(found) == 1 for found in rows(tmp_path / "tokens").values())
    assert rows(tmp_path / "tokens") == rows(tmp_path / "whole")


def long_track(folder: Path, index: int) -> Track:
    wav = np.random.default_rng(index).standard_normal(int(1.5 * 48000)).astype(np.float32) * 0.1
    sf.write(folder / f"u{index}.wav", wav, 48000)
    about = {"kind": "real", "title": "t", "source": "s", "licence": "CC0", "codec_ok": True, "captions": ("a",)}
    return Track(id=f"u{index}", path=f"u{index}.wav", seconds=1.5, split="train", **about)


def test_what_cannot_be_encoded_is_named_and_the_rest_is_kept(manifest: Path, tmp_path: Path, models: Any) -> None:
    (tmp_path / "t2.wav").write_bytes(b"not audio")
    with pytest.raises(TrainingError, match="1 of 5 tracks cannot be encoded.*t2: t2.wav"):
        tokens.prepare_tokens(manifest, tmp_path / "tokens", encode_here(Encoder(*models)))
    assert sorted(rows(tmp_path / "tokens")) == ["t0", "t1", "t3", "t4"]


@pytest.mark.parametrize("semitones", [[], [-5, 5]])
@pytest.mark.parametrize("share", [0.1, 1.2])
def test_a_file_of_another_length_than_its_manifest_says_is_refused(
    manifest: Path, tmp_path: Path, models: Any, semitones: list[int], share: float
) -> None:
    wav, _ = sf.read(tmp_path / "t2.wav", dtype="float32")
    sf.write(tmp_path / "t2.wav", np.resize(wav, int(share * len(wav))), RATE)
    refused = (
        rf"{1 + len(semitones)} of .*: t2.wav: lasts {2 * share} s, its manifest says 2.0 s; build the corpus again"
    )
    with pytest.raises(TrainingError, match=refused):
        tokens.prepare_tokens(
            manifest, tmp_path / "out", encode_here(Encoder(*models)), lambda tracks: with_varispeed(tracks, semitones)
        )
    assert {utt.partition("@")[0] for utt in rows(tmp_path / "out")} == {"t0", "t1", "t3", "t4"}


def test_a_store_that_fails_is_not_taken_for_the_end_of_a_track(
    manifest: Path, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if size is None or size < 0 or self.tell() + size > 20_000:
                raise OSError("connection reset")
            return super().read(size)

        def readinto(self, buffer: Any) -> int:
            found = self.read(len(buffer))
            buffer[: len(found)] = found
            return len(found)

    failing = Failing((manifest.parent / "t0.wav").read_bytes())
    monkeypatch.setattr(encoding, "open_folder", lambda folder: SimpleNamespace(open=lambda name: failing))
    with pytest.raises(OSError, match="connection reset"):
        Encoder(*models)(Job("t0", "s3://bucket", "t0.wav", 2.0))


def test_object_storage_holds_the_same_as_the_disk(manifest: Path, tmp_path: Path, models: Any) -> None:
    here = encode_here(Encoder(*models))
    memory = fsspec.filesystem("memory")
    memory.put(f"{tmp_path}/", "/corpus/", recursive=True)
    tokens.prepare_tokens(manifest, tmp_path / "tokens", here)
    tokens.prepare_tokens("memory://corpus/manifest.jsonl", "memory://tokens", here)
    assert tokens.prepare_tokens("memory://corpus/manifest.jsonl", "memory://tokens", here).tracks == 0
    disk, stored = (read_token_tracks(folder, "train") for folder in (tmp_path / "tokens", "memory://tokens"))
    assert [track.utt for track in disk] == [track.utt for track in stored]
    assert all(np.array_equal(a.acoustic, b.acoustic) for a, b in zip(disk, stored, strict=True))
    assert memory.glob("/tokens/*.part") == []


def test_a_clip_keeps_its_place_in_the_song(manifest: Path, tmp_path: Path, models: Any) -> None:
    clip = read_manifest(manifest)[0].model_copy(update={"offset": 30.0})
    write_manifest(manifest, [clip])
    tokens.prepare_tokens(manifest, tmp_path / "tokens", encode_here(Encoder(*models)))
    (row,) = rows(tmp_path / "tokens")["t0"]
    assert (row["time_start"], row["time_end"]) == (30, 32)
    (track,) = read_token_tracks(tmp_path / "tokens", "train")
    assert track.offset == 30
    assert [(section.start, section.end) for section in track.sections] == [(30, 31), (31, 32)]


def test_published_shards_are_read(golden_directory: Path, tmp_path: Path) -> None:
    real = json.loads((golden_directory / "real_tokens.json").read_text())["rows"]
    nested = [row | {"semantic_token": [row["semantic_token"]]} for row in real]
    pq.write_table(pa.Table.from_pylist(nested[:2]), tmp_path / "parquet_000000000.tar")
    pq.write_table(pa.Table.from_pylist(real[2:]), tmp_path / "flat.parquet")
    tracks = [*read_token_tracks(tmp_path, "train"), *read_token_tracks(tmp_path, "valid")]
    assert sorted(track.utt for track in tracks) == sorted(row["utt"] for row in real)
    for track in tracks:
        row = next(row for row in real if row["utt"] == track.utt)
        assert track.semantic.tolist() == row["semantic_token"]
        assert track.acoustic.T.tolist() == row["acoustic_token"]
        assert track.captions == (row["text"],)
        (section,) = track.sections
        assert (track.offset, section.start, section.end, section.label) == (
            row["time_start"], row["time_start"], row["time_end"], row["chorus"],
        )  # fmt: skip


def test_labels_of_published_shards_that_no_section_has_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["verse1", "bridge", "inst", "bridge", None]
    published = [
        {"utt": f"u{n}", "text": "x", "chorus": name, "time_start": 0.0, "time_end": 9.0, "semantic_token": [[1]]}
        for n, name in enumerate(names)
    ]
    pq.write_table(pa.Table.from_pylist(published), tmp_path / "a.parquet")
    tracks = [*read_token_tracks(tmp_path, "train"), *read_token_tracks(tmp_path, "valid")]
    assert [section.label for track in tracks for section in track.sections] == ["verse"]
    assert "no section for the labels" in caplog.text
    assert "inst (1)" in caplog.text
    assert "verse1 (1)" not in caplog.text


@pytest.mark.parametrize(
    ("columns", "metadata", "message"),
    [
        ({"utt": ["a"], "text": ["b"]}, {}, "lacks the columns semantic_token"),
        ({"utt": ["a"], "text": ["b"], "semantic_token": [[1]]}, {"longplay_schema": "9"}, "schema version 9"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, columns: Any, metadata: Any, message: str) -> None:
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), tmp_path / "x.parquet")
    with pytest.raises(TrainingError, match=message):
        read_token_tracks(tmp_path, "train")
    (tmp_path / "x.parquet").write_bytes(b"PAR0")
    with pytest.raises(TrainingError, match="is no token shard"):
        read_token_tracks(tmp_path, "train")


def test_labels_choose_and_correct_what_is_encoded(manifest: Path, tmp_path: Path, models: Any) -> None:
    labels = {
        "t0": TrackLabel(id="t0", rating=5, caption="mine", sections=(Section(label="chorus", start=0, end=2),)),
        "t1": TrackLabel(id="t1", rating=2),
        "t4": TrackLabel(id="t4", rating=3),
    }
    here = encode_here(Encoder(*models))
    tokens.prepare_tokens(manifest, tmp_path / "sft", here, lambda tracks: apply_labels(tracks, labels, 3))
    found = rows(tmp_path / "sft")
    assert sorted(found) == ["t0", "t4"]
    assert (found["t0"][0]["captions"], found["t0"][0]["sections"]) == (["mine"], "chorus:0-2")
    assert found["t4"][0]["captions"] == ["a", "b"]
    with pytest.raises(TrainingError, match="holds 't4', which is not chosen now"):
        tokens.prepare_tokens(manifest, tmp_path / "sft", here, lambda tracks: apply_labels(tracks, labels, 4))
