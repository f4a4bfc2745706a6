from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from longplay.data.manifest import Track, read_manifest, write_manifest
from longplay.data.token_windows import TokenWindows, read_token_tracks
from longplay.engine import encode as engine_encode
from longplay.errors import TrainingError
from longplay.models.codec import Codec, CodecConfig
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.prompt import Section
from longplay.train import tokens

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


def test_shards_hold_exactly_what_the_models_encode(manifest: Path, tmp_path: Path, models: Any) -> None:
    assert tokens.prepare_tokens(manifest, tmp_path / "tokens", *models) == 5
    track = read_token_tracks(tmp_path / "tokens", "train")[1]
    wav = torch.from_numpy(sf.read(tmp_path / "t1.wav", dtype="float32")[0]).view(1, 1, -1)
    with torch.inference_mode():
        assert torch.equal(torch.from_numpy(track.acoustic.astype(np.int64)), models[1].encode(wav)[0])
    assert track.captions == ("a", "b")
    assert [section.label for section in track.sections] == ["intro", "verse"]
    assert len(track.semantic) == -(-len(wav[0, 0]) // 2 // HOP)


def test_windows_give_the_same_codes_as_the_whole(
    manifest: Path, tmp_path: Path, models: Any, monkeypatch: Any
) -> None:
    tokens.prepare_tokens(manifest, tmp_path / "whole", *models)
    monkeypatch.setattr(engine_encode, "WINDOW_SECONDS", 0.25)
    tokens.prepare_tokens(manifest, tmp_path / "windows", *models)
    for a, b in zip(*(read_token_tracks(tmp_path / name, "train") for name in ("whole", "windows")), strict=True):
        assert np.array_equal(a.semantic, b.semantic)
        assert np.array_equal(a.acoustic, b.acoustic)


def test_a_killed_run_goes_on_with_nothing_lost_or_doubled(
    manifest: Path, tmp_path: Path, models: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(tokens, "TRACKS_PER_SHARD", 2)
    encode, calls = tokens._encode_track, []

    def dies_on_the_fourth(track: Track, *args: Any) -> Any:
        calls.append(track.id)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(track, *args)

    monkeypatch.setattr(tokens, "_encode_track", dies_on_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        tokens.prepare_tokens(manifest, tmp_path / "tokens", *models)
    assert tokens.prepare_tokens(manifest, tmp_path / "tokens", *models) == 3
    tracks = read_token_tracks(tmp_path / "tokens", "train") + read_token_tracks(tmp_path / "tokens", "valid")
    assert sorted(track.utt for track in tracks) == ["t0", "t1", "t2", "t3", "t4"]


def test_windows_are_a_function_of_seed_and_index(manifest: Path, tmp_path: Path, models: Any) -> None:
    tokens.prepare_tokens(manifest, tmp_path / "tokens", *models)
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


def test_what_is_missing_is_named(tmp_path: Path, manifest: Path, models: Any) -> None:
    with pytest.raises(TrainingError, match="holds no token shard"):
        read_token_tracks(tmp_path, "train")
    tokens.prepare_tokens(manifest, tmp_path / "tokens", *models)
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
    tokens.prepare_tokens(manifest, tmp_path / "tokens", models[0], None)
    tokens.prepare_tokens(manifest, tmp_path / "both", *models)
    without, both = (read_token_tracks(tmp_path / name, "train")[0] for name in ("tokens", "both"))
    assert np.array_equal(without.semantic, both.semantic)
    assert without.acoustic.shape == (0, 0)


def test_new_captions_reach_old_shards_without_encoding_again(
    manifest: Path, tmp_path: Path, models: Any, monkeypatch: Any
) -> None:
    tokens.prepare_tokens(manifest, tmp_path / "tokens", *models)
    before = read_token_tracks(tmp_path / "tokens", "train")
    write_manifest(manifest, [track.model_copy(update={"captions": ("new",)}) for track in read_manifest(manifest)])
    monkeypatch.setattr(tokens, "_encode_track", None)
    assert tokens.prepare_tokens(manifest, tmp_path / "tokens", *models) == 0
    after = read_token_tracks(tmp_path / "tokens", "train")
    assert {track.captions for track in after} == {("new",)}
    assert all(
        np.array_equal(a.semantic, b.semantic) and a.sections == b.sections for a, b in zip(before, after, strict=True)
    )
