"""How a flow whose encoder has the body of a tokenizer's decoder starts: as that decoder, and a linear map to the latents.

A flow that begins at random spends most of its training on finding out what the codes sound like, which the tokenizer's
decoder knows (docs/experiments.md, 2026-11-28).
"""

import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from longplay.errors import CheckpointError
from longplay.models.flow import Flow
from longplay.models.tokenizer import Tokenizer
from longplay.nn.convnext import ConvNeXtEncoder
from longplay.nn.length_regulator import stretch
from longplay.nn.spectral import SpectralDecoder

logger = logging.getLogger(__name__)

RIDGE = 1e-3  # of the features' mean variance


@torch.no_grad()
def start_from_decoder(flow: Flow, tokenizer: Tokenizer, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set embedding and encoder to those of the tokenizer's decoder, and the length regulator to least squares.

    The condition is then the best linear guess of the (normalised) latents from what the decoder knows of the codes. A flow
    with `precondition` also learns how far the guess is off, and that its estimator has nothing to say yet.

    Args:
        flow: with a `convnext` encoder and a length regulator without layers.
        tokenizer: of one codebook, with a spectral decoder of the encoder's sizes.
        batches: codes [B, T] and latents [B, D, T * ratio] to fit.

    Raises:
        CheckpointError: sizes or kinds differ.
    """
    encoder, decoder = flow.encoder, tokenizer.decoder
    if not (isinstance(encoder, ConvNeXtEncoder) and isinstance(decoder, SpectralDecoder)):
        raise CheckpointError(
            "only a flow with encoder.kind convnext can start from a tokenizer, and only from a spectral one"
        )
    if flow.config.regulator_layers:
        raise CheckpointError(
            f"regulator_layers = {flow.config.regulator_layers}: a flow that starts from a tokenizer needs 0"
        )
    body = {name: value for name, value in decoder.state_dict().items() if not name.startswith("head.")}
    words = tokenizer.project_out(tokenizer.codebook.decode(torch.arange(flow.config.codebook_size).unsqueeze(0)))[0].T
    try:
        encoder.load_state_dict(body)
        flow.input_embedding.load_state_dict({"weight": words})
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"the tokenizer's decoder does not fit the flow's encoder ({reason})") from None
    weight, bias, left, total = _least_squares(flow, batches)
    last = flow.length_regulator.model[-1]
    assert isinstance(last, nn.Conv1d)
    last.weight.copy_(weight.unsqueeze(-1))
    last.bias.copy_(bias)  # type: ignore[union-attr]
    if flow.config.precondition:
        flow.latent_spread.copy_(left.sqrt().clamp_min(1e-3))
        flow.estimator.say_nothing()
    share = float(left.sum() / total.sum())
    logger.info("from the tokenizer's decoder: a linear map leaves %.3f of the latents' variance", share)


def _least_squares(flow: Flow, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight [D, F] and bias [D] from stretched features to normalised latents, the variance [D] that they leave, and all."""
    dim = flow.config.encoder.dim
    size = dim + flow.config.latent_dim + 1
    products, count = torch.zeros(size, size, dtype=torch.float64), 0
    for codes, latents in batches:
        features = flow.encoder(flow.input_embedding(codes)).mT  # [B, F, T]
        stretched = stretch(features, latents.shape[2])
        both = torch.cat((stretched, flow.normalize(latents)), dim=1).transpose(0, 1).flatten(1).double()
        both = torch.cat((both, torch.ones(1, both.shape[1], dtype=torch.float64)))
        products, count = products + both @ both.T, count + both.shape[1]
    moments = products / count
    mean = moments[:-1, -1]
    covariance = moments[:-1, :-1] - mean.outer(mean)
    inner, cross, outer = covariance[:dim, :dim], covariance[dim:, :dim], covariance[dim:, dim:]
    ridge = RIDGE * inner.diagonal().mean() * torch.eye(dim, dtype=torch.float64)
    weight = torch.linalg.solve(inner + ridge, cross.T).T
    left = (outer - weight @ cross.T).diagonal()
    return weight.float(), (mean[dim:] - weight @ mean[:dim]).float(), left.float(), outer.diagonal().float()
