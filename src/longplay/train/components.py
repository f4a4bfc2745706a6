"""How an autoencoder with a shortcut around its blocks starts: as the best linear one, which the blocks then improve.

Without it 8,000 steps of training stayed behind 64 principal components of a mel spectrum (docs/experiments.md,
2026-11-23): the norms in the blocks take away the level of a frame, and most of the training goes into bringing it back.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from longplay.models.codec import Codec
from longplay.models.tokenizer import Tokenizer
from longplay.nn.spectral import ComponentsEncoder, SpectralDecoder, SpectralEncoder

logger = logging.getLogger(__name__)

BATCHES = 24  # with nano's batches of 8 x 1 s, 29,000 frames
BATCH_SIZE = 8
LEAST_WEIGHT = 1e-3  # of the largest: frequencies that the loss leaves out are described a little, too
SEED = 2**31  # a stream of crops of its own


def start_from_components(model: Tokenizer | Codec, batch: Callable[[int, int, int], Tensor], weight: Tensor) -> None:
    """Set encoder (or its shortcut) and the decoder's shortcut to principal components of the log-magnitudes; silence the blocks.

    Latents are the components, in one common scale, that make the weighted squared error of the log-magnitudes least;
    successive ones go to the quantizer's groups in turn, so that each has its share. Does nothing for a model without
    shortcuts.

    Args:
        model: with spectral encoder and decoder of the same STFT.
        batch: wav [B, 1, S] of a seed, an index and a size.
        weight: of the squared error at each frequency [F].
    """
    encoder, decoder = model.encoder, model.decoder
    if isinstance(encoder, ComponentsEncoder):
        components, hear = encoder.out, encoder.logarithm
    elif isinstance(encoder, SpectralEncoder) and encoder.shortcut is not None:
        components, hear = encoder.shortcut, lambda wav: encoder.features(wav)[0]
    else:
        return
    if not isinstance(decoder, SpectralDecoder) or not decoder.config.shortcut:
        return
    if encoder.config.n_fft != decoder.config.n_fft:
        return
    dim = components.out_features
    with torch.no_grad():
        heard = (hear(batch(SEED, index, BATCH_SIZE)) for index in range(BATCHES))
        frames = torch.cat([part.transpose(0, 1).flatten(1) for part in heard], dim=1).double()  # [F, N]
        mean = frames.mean(1, keepdim=True)
        scale = weight.double().clamp_min(LEAST_WEIGHT * float(weight.max())).sqrt().unsqueeze(1)
        weighted = (frames - mean) * scale
        covariance = weighted @ weighted.T / frames.shape[1]
        values, vectors = torch.linalg.eigh(covariance)
        values, vectors = values.flip(0)[:dim], vectors.flip(1)[:, :dim]
        logger.info("%d components hold %.3f of the variance", dim, float(values.sum() / covariance.trace()))
        groups = model.config.quantizer.num_groups if isinstance(model, Codec) else 1
        order = torch.arange(dim).view(-1, groups).T.flatten()
        vectors = vectors[:, order] / values.mean().sqrt()  # latents of variance 1 on average
        to_latents = (vectors * scale).T  # [D, F]
        from_latents = vectors * values.mean() / scale  # [F, D]
        components.weight.copy_(to_latents)
        components.bias.copy_(-(to_latents @ mean).squeeze(1))
        if isinstance(encoder, SpectralEncoder):
            encoder.out.weight.zero_()
            encoder.out.bias.zero_()
        decoder.head.out.weight.zero_()
        decoder.head.out.weight[:, -dim:] = from_latents.float()
        decoder.head.out.bias.copy_(mean.squeeze(1))
