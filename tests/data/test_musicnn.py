import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from longplay.data import musicnn_weights
from longplay.data.musicnn import EMBEDDING_DIM, NUM_TAGS, PATCH_FRAMES, Listener, LogMel, Musicnn
from longplay.errors import DownloadError

# librosa 0.11: melspectrogram(sr=16000, n_fft=512, hop_length=256, n_mels=96), then as in `LogMel`; frames 0, 20, 40, 62.
LIBROSA_BANDS = [0, 8, 17, 30, 50, 77, 95]
LIBROSA = [
    [3.8969, 3.6285, 3.7949, 2.218, 0.9741, 0.0016, 1.1068],
    [0.001, 0.1229, 0.5354, 0.0, 0.0503, 0.0, 0.0],
    [0.0005, 0.1206, 0.5361, 0.0, 0.0, 0.1245, 0.0],
    [2.6549, 3.111, 3.151, 1.4208, 0.2076, 0.3098, 1.2633],
]


def test_front_end_agrees_with_librosa() -> None:
    t = np.arange(16000) / 16000
    sweep = 0.2 * np.sin(2 * np.pi * (200 + 3000 * t) * t)
    wav = 0.4 * np.sin(2 * np.pi * 440 * t) + sweep + 0.1 * np.sin(2 * np.pi * 6500 * t)

    frames = LogMel()(torch.from_numpy(wav.astype(np.float32))[None])[0]

    assert frames.shape == (63, 96)
    assert frames.mean() == pytest.approx(0.5940326, abs=1e-5)
    torch.testing.assert_close(frames[[0, 20, 40, 62]][:, LIBROSA_BANDS], torch.tensor(LIBROSA), atol=2e-3, rtol=0)


def test_forward_gives_probabilities_and_embeddings() -> None:
    tags, embedding = Musicnn().eval()(torch.rand(2, PATCH_FRAMES, 96))

    assert tags.shape == (2, NUM_TAGS)
    assert embedding.shape == (2, EMBEDDING_DIM)
    assert bool(((tags > 0) & (tags < 1)).all())


def test_weights_described_fill_the_model_exactly() -> None:
    described = musicnn_weights.description()["tensors"]
    random = np.random.default_rng(0)
    tensors = {name: random.random(shape, np.float32) for name, (_, shape) in described.items()}
    model = Musicnn()
    model.load(tensors)

    state = {name: value for name, value in model.state_dict().items() if "num_batches" not in name}
    assert sum(value.numel() for value in state.values()) == sum(value.size for value in tensors.values())
    assert len(state) == len(tensors)
    np.testing.assert_array_equal(model.tag.weight.detach().T, tensors["dense_1/kernel"])
    np.testing.assert_array_equal(model.front[1].conv.weight[7, 0].detach(), tensors["conv2d_1/kernel"][:, :, 0, 7])
    np.testing.assert_array_equal(model.embedding_norm.running_var, tensors["batch_normalization_10/moving_variance"])


def test_listener_hears_each_clip_by_itself() -> None:
    torch.manual_seed(0)
    listener = Listener(Musicnn(), Musicnn())
    random = np.random.default_rng(0)
    short, long = (0.1 * random.standard_normal(22050 * seconds).astype(np.float32) for seconds in (4, 7))

    both, alone = listener.hear([short, long], 22050), listener.hear([long], 22050)

    assert both.embeddings.shape == (1 + 2, EMBEDDING_DIM)
    assert both.tags.shape == (2, 2 * NUM_TAGS)
    np.testing.assert_array_equal(listener.embed([short, long], 22050), both.embeddings)
    np.testing.assert_allclose(both.embeddings[1:], alone.embeddings, atol=1e-6)
    with pytest.raises(ValueError, match="needs 3 s"):
        listener.hear([short[:1000]], 22050)


def test_there_are_fifty_tags_each() -> None:
    for training in ("MTT", "MSD"):
        assert len(set(musicnn_weights.tag_names(training))) == NUM_TAGS


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small stand-in for the wheel in the cache: one tensor, two models."""
    description = dict(musicnn_weights.description(), tensors={"dense/bias": [4, [2]]})
    path = tmp_path / description["wheel"]
    with zipfile.ZipFile(path, "w") as archive:
        for training, member in description["members"].items():
            archive.writestr(member, np.array([9, 1, 2, 9] if training == "MTT" else [0, 3, 4], "<f4").tobytes())
    description["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(musicnn_weights, "description", lambda: description)
    monkeypatch.setenv("LONGPLAY_CACHE", str(tmp_path))
    return path


@pytest.mark.parametrize(("training", "expected"), [("MTT", [1, 2]), ("MSD", [3, 4])])
def test_tensors_are_read_at_their_offsets(
    wheel: Path, training: musicnn_weights.Training, expected: list[float]
) -> None:
    assert wheel.is_file()
    assert musicnn_weights.read_tensors(training)["dense/bias"].tolist() == expected


def test_another_wheel_is_refused(wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes() + b"x")

    with pytest.raises(DownloadError, match="delete it"):
        musicnn_weights.fetch_wheel()


def test_a_failed_download_says_why_and_where_to_put_the_wheel(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel.unlink()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))

    with pytest.raises(DownloadError, match=f"cannot be fetched.*put it at .*{wheel.name}"):
        musicnn_weights.fetch_wheel()
    assert list(wheel.parent.iterdir()) == []
