"""The published layout end to end (marker `tiny_checkpoint`), and native directories opened."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from longplay.audio.clip import Audio
from longplay.audio.finish import Finish
from longplay.checkpoint.store import SystemConfig, save_native
from longplay.checkpoint.system import System, load_system
from longplay.errors import CheckpointError
from systems import save_tiny, tiny_config, tiny_weights

TOLERANCE = 1e-4
GUIDANCE = 3.0
SECONDS = 0.5


@pytest.fixture(scope="module")
def checkpoint(golden_directory: Path) -> Path:
    return golden_directory / "tiny_checkpoint"


@pytest.fixture(scope="module")
def expected(golden_directory: Path) -> dict[str, torch.Tensor]:
    return load_file(golden_directory / "tiny_checkpoint_expected.safetensors")


@pytest.fixture(scope="module")
def system(checkpoint: Path) -> System:
    return load_system(checkpoint)


def copy(checkpoint: Path, destination: Path) -> Path:
    shutil.copytree(checkpoint, destination, copy_function=shutil.copyfile)
    return destination


@pytest.mark.tiny_checkpoint
class TestPublished:
    def test_text_ids(self, system: System, expected: dict[str, Any], golden_directory: Path) -> None:
        texts = json.loads((golden_directory / "tiny_checkpoint_expected.json").read_text(encoding="utf-8"))["texts"]
        assert system.text_tokenizer is not None
        for text, suffix in zip(texts, ("", "_1", "_2"), strict=True):
            assert system.text_tokenizer.encode(text) == expected[f"out.llm.text_ids{suffix}"].tolist()

    @torch.inference_mode()
    def test_tokenizer(self, system: System, expected: dict[str, torch.Tensor]) -> None:
        assert system.tokenizer is not None
        codes = system.tokenizer.encode(expected["in.wav24"].unsqueeze(1))
        assert torch.equal(codes, expected["out.wavtokenizer.codes"][:, 0])
        wav = system.tokenizer.decode(expected["in.tokens"])
        torch.testing.assert_close(wav[:, 0], expected["out.fast.wav_24k"], atol=TOLERANCE, rtol=0)

    @torch.inference_mode()
    def test_codec(self, system: System, expected: dict[str, torch.Tensor]) -> None:
        assert system.codec is not None
        codes = system.codec.encode(expected["in.wav48"].unsqueeze(1))
        assert torch.equal(codes.mT, expected["out.codec.codes_of_wav48"])
        wav = system.codec.decode(system.codec.embed(codes))
        torch.testing.assert_close(wav, expected["out.codec.reconstruction"], atol=TOLERANCE, rtol=0)

    @pytest.mark.parametrize("task", ["t2m", "cont"])
    @torch.inference_mode()
    def test_lm(self, system: System, expected: dict[str, torch.Tensor], task: str) -> None:
        lm = system.lm
        assert lm is not None
        ids = expected["out.llm.text_ids"]
        prompt = expected["out.wavtokenizer.codes"][0, 0] if task == "cont" else ids[:0]
        structure = lm.structure(torch.tensor([0.0]), torch.tensor([30.0]), torch.tensor([0]))
        noise = [expected[f"in.uncond.{name}"][0] for name in ("time_start", "time_end", "chorus")]
        unconditional = lm.assemble(torch.cat(noise), torch.zeros_like(ids), torch.zeros_like(prompt))
        inputs = torch.stack([lm.assemble(structure, ids, prompt), unconditional])
        wanted_codes, wanted_logits = (expected[f"out.llm.{task}.{name}"] for name in ("tokens", "logits_mixed"))
        decoder, cache = lm.decoder(), lm.cache(2, inputs.shape[1] + wanted_codes.shape[1])
        codes = []
        for step, wanted in enumerate(wanted_logits):
            conditional, unconditional = decoder.head(decoder(inputs, cache)[:, -1])
            logits = GUIDANCE * conditional + (1 - GUIDANCE) * unconditional
            torch.testing.assert_close(logits, wanted, atol=TOLERANCE, rtol=0)
            if step < int(0.9 * SECONDS * lm.config.code_rate):
                logits[lm.config.eos] = -torch.inf
            codes.append(logits.argmax())
            inputs = lm.audio_embedding(codes[-1]).expand(2, 1, -1)
        assert torch.equal(torch.stack(codes), wanted_codes[0])

    @torch.inference_mode()
    def test_finished_piece(self, system: System, expected: dict[str, torch.Tensor]) -> None:
        assert system.flow is not None
        assert system.codec is not None
        latents = system.flow.sample(expected["in.tokens"], expected["in.noise_150"], solver="euler", num_steps=10)
        audio = Audio(system.codec.decode(latents)[0].numpy(), system.codec.config.sample_rate)
        finished = Finish(loudness=None, fade=0.2).apply(audio)
        wanted = expected["out.final.wav_48000_fade0.2s_stereo"]
        torch.testing.assert_close(torch.from_numpy(finished.wav.copy()), wanted, atol=TOLERANCE, rtol=0)

    @pytest.mark.parametrize(("sample_rate", "frame_rate"), [(24000, 75), (48000, 150)])
    @torch.inference_mode()
    def test_flow_and_vocoder(
        self, checkpoint: Path, expected: dict[str, torch.Tensor], tmp_path: Path, sample_rate: int, frame_rate: int
    ) -> None:
        directory = copy(checkpoint, tmp_path / "model")
        path = directory / "music_tokenizer" / "config.json"
        path.write_text(path.read_text().replace('"sampling_rate": 48000', f'"sampling_rate": {sample_rate}'))
        system = load_system(directory)
        assert system.flow is not None
        assert system.codec is not None
        assert system.codec.config.frame_rate == frame_rate
        latents = system.flow.sample(
            expected["in.tokens"], expected[f"in.noise_{frame_rate}"], solver="euler", num_steps=10
        )
        torch.testing.assert_close(latents, expected[f"out.flow.feat_{sample_rate}"], atol=TOLERANCE, rtol=0)
        wav = system.codec.decode(latents)
        torch.testing.assert_close(wav[:, 0], expected[f"out.flow.wav_{sample_rate}"], atol=TOLERANCE, rtol=0)

    def test_half_precision_is_read(self, checkpoint: Path, tmp_path: Path) -> None:
        directory = copy(checkpoint, tmp_path / "model")
        state = torch.load(directory / "llm.pt", weights_only=True)
        torch.save({name: tensor.bfloat16() for name, tensor in state.items()}, directory / "llm.pt")
        system = load_system(directory)
        assert system.lm is not None
        assert {parameter.dtype for parameter in system.lm.parameters()} == {torch.float32}
        narrow = load_system(directory, dtype=torch.bfloat16)
        assert narrow.lm is not None
        assert {parameter.dtype for parameter in narrow.lm.parameters()} == {torch.bfloat16}
        assert narrow.codec is not None
        assert next(narrow.codec.parameters()).dtype == torch.float32

    @pytest.mark.parametrize(
        "file",
        [
            "llm.pt",
            "flow.pt",
            "music_tokenizer/model.pt",
            "wavtokenizer/model.pt",
            "config.json",
            "wavtokenizer/config.yaml",
        ],
    )
    def test_a_half_downloaded_model_names_the_missing_file(self, checkpoint: Path, tmp_path: Path, file: str) -> None:
        directory = copy(checkpoint, tmp_path / "model")
        (directory / file).unlink()
        with pytest.raises(CheckpointError, match=rf"model: is incomplete, it misses {file}; download"):
            load_system(directory)

    def test_a_truncated_model_names_the_file(self, checkpoint: Path, tmp_path: Path) -> None:
        directory = copy(checkpoint, tmp_path / "model")
        data = (directory / "flow.pt").read_bytes()
        (directory / "flow.pt").write_bytes(data[: len(data) // 2])
        with pytest.raises(CheckpointError, match=r"flow\.pt: is truncated"):
            load_system(directory)

    def test_files_of_two_models_do_not_mix(self, checkpoint: Path, tmp_path: Path) -> None:
        directory = copy(checkpoint, tmp_path / "model")
        path = directory / "inspiremusic.yaml"
        path.write_text(path.read_text().replace("num_blocks: 2", "num_blocks: 3"))
        with pytest.raises(CheckpointError, match=r"flow: does not match its config: misses encoder\.layers\.2"):
            load_system(directory)

    def test_tied_copies_that_differ_are_refused(self, checkpoint: Path, tmp_path: Path) -> None:
        directory = copy(checkpoint, tmp_path / "model")
        state = torch.load(directory / "llm.pt", weights_only=True)
        state["llm.model.lm_head.weight"] = state["llm.model.lm_head.weight"] + 1
        torch.save(state, directory / "llm.pt")
        with pytest.raises(CheckpointError, match=r"lm_head\.weight differ"):
            load_system(directory)

    @pytest.mark.parametrize(
        ("file", "old", "new", "message"),
        [
            (
                "inspiremusic.yaml",
                "use_cnn_module: False",
                "use_cnn_module: True",
                "flow.encoder.use_cnn_module = True",
            ),
            ("inspiremusic.yaml", "ConformerEncoder", "BranchformerEncoder", "'BranchformerEncoder' is not supported"),
            ("inspiremusic.yaml", "vocab_size: 256", "vocab: 256", "'flow.vocab_size' is missing"),
            ("wavtokenizer/config.yaml", "VocosBackbone", "OtherBackbone", "only VocosBackbone is supported"),
            ("music_tokenizer/config.json", '"n_codes": 64', '"n_codes": "many"', "codebook.size = 'many'"),
        ],
    )
    def test_a_config_that_we_do_not_have_is_named(
        self, checkpoint: Path, tmp_path: Path, file: str, old: str, new: str, message: str
    ) -> None:
        directory = copy(checkpoint, tmp_path / "model")
        path = directory / file
        path.write_text(path.read_text().replace(old, new))
        with pytest.raises(CheckpointError, match=message):
            load_system(directory)


def test_a_native_directory(tmp_path: Path) -> None:
    save_tiny(tmp_path / "tiny")
    system = load_system(tmp_path / "tiny")
    assert system.config == tiny_config()
    assert system.tokenizer is not None
    assert system.codec is not None
    assert system.text_tokenizer is not None
    wav = torch.randn(1, 1, 24000) / 10
    assert system.tokenizer.decode(system.tokenizer.encode(wav)).shape == wav.shape


def test_a_text_tokenizer_too_large_for_the_lm(tmp_path: Path) -> None:
    directory = save_tiny(tmp_path / "tiny")
    path = directory / "config.yaml"
    path.write_text(path.read_text().replace("text_vocab_size: 300", "text_vocab_size: 260"))
    with pytest.raises(CheckpointError, match=r"text tokenizer has \d+ ids, its lm only 260"):
        load_system(directory)


def test_what_is_absent_is_none(tmp_path: Path) -> None:
    save_native(tmp_path / "run", SystemConfig(codec=tiny_config().codec), {"codec": tiny_weights()["codec"]})
    system = load_system(tmp_path / "run")
    assert system.codec is not None
    assert system.tokenizer is None
    assert system.lm is None
    assert system.flow is None
    assert system.text_tokenizer is None


def test_the_digest_is_of_the_weight_files(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("same", 0), ("other", 1)):
        save_tiny(tmp_path / name, seed)
    a, same, other = (load_system(tmp_path / name).digest for name in ("a", "same", "other"))
    assert a == same != other
