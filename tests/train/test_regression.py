from typing import Any

import pytest
import torch
from torch import Tensor

from longplay.errors import CheckpointError
from longplay.models.flow import Flow
from longplay.models.flow_config import FlowConfig
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.train.regression import start_from_decoder

SPECTRAL = {"kind": "spectral", "n_fft": 64, "dim": 12, "intermediate_dim": 16, "num_layers": 2}
FLOW = {
    "codebook_size": 16, "code_rate": 20, "frame_rate": 40, "input_dim": 6, "latent_dim": 4, "normalize_latents": True,
    "regulator_layers": 0, "encoder": {"kind": "convnext", "dim": 12, "intermediate_dim": 16, "num_layers": 2},
    "estimator": {"channels": [8, 8], "num_blocks": [0, 1], "num_mid_blocks": 1, "num_heads": 2, "head_dim": 4},
}  # fmt: skip


def flow(**changes: Any) -> Flow:
    torch.manual_seed(1)
    return Flow(FlowConfig.parse(FLOW | changes)).eval()


@pytest.fixture
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    sizes = {"sample_rate": 640, "hop_length": 32, "latent_dim": 6, "codebook": {"size": 16, "dim": 2, "ema": False}}
    return Tokenizer(TokenizerConfig.parse(sizes | {"encoder": SPECTRAL, "decoder": SPECTRAL})).eval()


def pieces(tokenizer: Tokenizer) -> list[tuple[Tensor, Tensor]]:
    """Latents that are a linear map of what the decoder knows, twice as many as codes."""
    torch.manual_seed(2)
    mix = torch.randn(4, 12)
    found = []
    for _ in range(3):
        codes = torch.randint(16, (4, 50))
        with torch.no_grad():
            known = tokenizer.decoder.features(tokenizer.project_out(tokenizer.codebook.decode(codes))).mT
        doubled = torch.nn.functional.interpolate(known, size=100, mode="linear", align_corners=False)
        found.append((codes, mix @ doubled + 3))
    return found


def test_the_condition_is_the_least_squares_guess_of_the_latents(tokenizer: Tokenizer) -> None:
    model, batches = flow(), pieces(tokenizer)
    model.set_latent_statistics(torch.full((4,), 3.0), torch.full((4,), 2.0))
    start_from_decoder(model, tokenizer, batches)
    for codes, latents in batches:
        exact = model.normalize(latents)
        with torch.no_grad():
            left = (model.condition(codes) - exact).square().mean() / exact.var()
        assert left < 1e-3


def test_a_preconditioned_flow_starts_as_the_guess_and_what_it_leaves(tokenizer: Tokenizer) -> None:
    model = flow(precondition=True, condition_dropout=0.0, guidance=0.0)
    noise = torch.tensor([0.1, 0.5, 1.0, 2.0]).unsqueeze(1)
    batches = [(codes, latents + noise * torch.randn_like(latents)) for codes, latents in pieces(tokenizer)]
    start_from_decoder(model, tokenizer, batches)
    torch.testing.assert_close(model.latent_spread, noise.squeeze(1), rtol=0.15, atol=0)
    codes, latents = batches[0]
    with torch.no_grad():
        made = model.sample(codes, num_steps=50, solver="midpoint")
    torch.testing.assert_close((made - latents).std((0, 2)), 2**0.5 * noise.squeeze(1), rtol=0.2, atol=0)


def test_a_padded_batch_has_the_condition_of_its_rows(tokenizer: Tokenizer) -> None:
    model = flow()
    start_from_decoder(model, tokenizer, pieces(tokenizer))
    codes, lengths = torch.randint(16, (2, 30)), torch.tensor([30, 11])
    with torch.no_grad():
        both = model.condition(codes, code_lengths=lengths)
        alone = model.condition(codes[1:, :11])
    torch.testing.assert_close(both[1:, :, :22], alone, atol=1e-5, rtol=1e-4)
    assert not both[1, :, 22:].any()


def test_what_does_not_fit_is_refused(tokenizer: Tokenizer) -> None:
    batches = pieces(tokenizer)
    with pytest.raises(CheckpointError, match="needs 0"):
        start_from_decoder(flow(regulator_layers=1), tokenizer, batches)
    with pytest.raises(CheckpointError, match=r"decoder does not fit the flow's encoder .*size mismatch"):
        start_from_decoder(flow(encoder={**FLOW["encoder"], "dim": 16}), tokenizer, batches)
    conformer = {"dim": 12, "num_layers": 1, "num_heads": 2, "hidden_dim": 8}
    with pytest.raises(CheckpointError, match=r"only a flow with encoder.kind convnext"):
        start_from_decoder(flow(encoder=conformer), tokenizer, batches)
