import pytest
import torch

from longplay.nn.seanet import SeanetConfig, SeanetEncoder

CONFIG = SeanetConfig(strides=(2, 3, 4), base_channels=2)
HOP = CONFIG.hop_length


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 1), (5, 1), (HOP - 1, 1), (HOP, 1), (HOP + 1, 2), (3 * HOP, 3), (3 * HOP + 7, 4)]
)
def test_a_partial_hop_counts_as_a_frame(samples: int, frames: int) -> None:
    latents = SeanetEncoder(CONFIG, latent_dim=6)(torch.randn(2, 1, samples))
    assert latents.shape == (2, 6, frames)
    assert latents.isfinite().all()


def test_more_residual_layers_widen_their_dilation() -> None:
    config = SeanetConfig(strides=(2,), base_channels=4, num_residual_layers=3, dilation_base=3)
    encoder = SeanetEncoder(config, latent_dim=5)
    dilations = [layer.block[1].conv.dilation for layer in encoder.layers if hasattr(layer, "block")]
    assert dilations == [1, 3, 9]
    assert encoder(torch.randn(1, 1, 21)).shape == (1, 5, 11)


def test_batch_rows_do_not_influence_each_other() -> None:
    encoder = SeanetEncoder(CONFIG, latent_dim=6)
    wav = torch.randn(2, 1, 100)
    singles = torch.cat([encoder(wav[:1]), encoder(wav[1:])])
    torch.testing.assert_close(encoder(wav), singles, rtol=0, atol=1e-6)
