import torch

from longplay.nn.vocos import VocosDecoder, VocosDecoderConfig

CONFIG = VocosDecoderConfig(dim=8, intermediate_dim=12, num_layers=2, num_conditions=3, n_fft=32, num_groups=4)
HOP = 8


def test_every_frame_becomes_one_hop() -> None:
    decoder = VocosDecoder(CONFIG, HOP, latent_dim=5).eval()
    for frames in (1, 2, 9):
        assert decoder(torch.randn(2, 5, frames)).shape == (2, 1, frames * HOP)


def test_every_frame_influences_every_sample() -> None:
    decoder = VocosDecoder(CONFIG, HOP, latent_dim=5).double().eval()
    latents = torch.randn(1, 5, 80, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(decoder(latents)[0, 0, -1], latents)
    assert decoder.receptive_field is None
    assert (gradient[0].abs().sum(0) > 0).all()


def test_the_condition_chooses_the_row_of_every_adaptive_norm() -> None:
    decoder = VocosDecoder(CONFIG, HOP, latent_dim=5).eval()
    latents = torch.randn(1, 5, 6)
    with torch.no_grad():
        first = decoder(latents, condition=0)
        for norm in [decoder.norm, *(block.norm for block in decoder.blocks)]:
            norm.scale.weight[1] += 1
    assert torch.equal(decoder(latents), first)
    assert not torch.allclose(decoder(latents, condition=1), first)


def test_dropout_acts_in_training_only() -> None:
    decoder = VocosDecoder(CONFIG, HOP, latent_dim=5)
    latents = torch.randn(1, 5, 6)
    assert not torch.equal(decoder.train()(latents), decoder(latents))
    assert torch.equal(decoder.eval()(latents), decoder(latents))
