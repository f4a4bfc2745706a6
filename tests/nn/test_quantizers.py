import pytest
import torch

from longplay.nn.quantizers import Codebook, CodebookConfig, GroupResidualConfig, GroupResidualQuantizer


def test_encode_is_the_nearest_vector() -> None:
    torch.manual_seed(0)
    book = Codebook(CodebookConfig(size=32, dim=5, ema=False))
    x = torch.randn(2, 5, 7)
    distance = (x.mT.unsqueeze(2) - book.embed).square().sum(-1)  # [B, T, size]
    assert torch.equal(book.encode(x), distance.argmin(-1))


def test_encode_does_not_change_under_autocast() -> None:
    torch.manual_seed(0)
    book = Codebook(CodebookConfig(size=512, dim=16, ema=False))
    torch.nn.init.normal_(book.embed)
    x = torch.randn(4, 16, 64)
    with torch.autocast("cpu", torch.bfloat16):
        codes = book.encode(x)
    assert torch.equal(codes, book.encode(x))


def test_gradient_passes_straight_through_and_the_commitment_pulls_back() -> None:
    book = Codebook(CodebookConfig(size=8, dim=3))
    x = torch.randn(1, 3, 4, requires_grad=True)
    book(x).values.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    x.grad = None
    book(x).loss.backward()
    assert x.grad.abs().sum() > 0


def test_moving_average_finds_the_cluster_means() -> None:
    torch.manual_seed(0)
    means = torch.tensor([[4.0, 0.0], [-4.0, 0.0], [0.0, 4.0], [0.0, -4.0]])
    book = Codebook(CodebookConfig(size=4, dim=2, decay=0.9))
    for _ in range(200):
        rows = means[torch.randint(4, (64,))] + 0.1 * torch.randn(64, 2)
        book(rows.T.unsqueeze(0))
    nearest = (book.embed.unsqueeze(0) - means.unsqueeze(1)).norm(dim=-1).min(1).values
    assert nearest.max() < 0.1


def test_dead_codes_are_revived_from_the_batch() -> None:
    torch.manual_seed(0)
    book = Codebook(CodebookConfig(size=64, dim=4, decay=0.9))
    x = torch.randn(8, 4, 64)
    book(x)
    book.embed[32:] = 100.0  # far from all data: never chosen
    for _ in range(100):
        book(torch.randn(8, 4, 64))
    assert book.embed.abs().max() < 10
    assert book.encode(torch.randn(8, 4, 512)).unique().numel() > 56


def test_nothing_moves_in_eval_mode() -> None:
    book = Codebook(CodebookConfig(size=8, dim=3)).eval()
    before = {key: value.clone() for key, value in book.state_dict().items()}
    book(torch.randn(1, 3, 16))
    assert all(torch.equal(value, before[key]) for key, value in book.state_dict().items())


@pytest.fixture
def residual() -> GroupResidualQuantizer:
    torch.manual_seed(0)
    config = GroupResidualConfig(num_layers=3, num_groups=2, codebook=CodebookConfig(size=16, dim=4, ema=False))
    quantizer = GroupResidualQuantizer(config)
    for parameter in quantizer.parameters():
        torch.nn.init.normal_(parameter)
    return quantizer


def test_forward_encode_and_decode_agree(residual: GroupResidualQuantizer) -> None:
    x = torch.randn(2, 8, 5)
    quantized = residual(x)
    assert quantized.codes.shape == (2, residual.config.num_codebooks, 5)
    assert torch.equal(quantized.codes, residual.encode(x))
    torch.testing.assert_close(quantized.values, residual.decode(quantized.codes))


def test_codes_are_ordered_layer_first(residual: GroupResidualQuantizer) -> None:
    codes = torch.zeros(1, 6, 1, dtype=torch.long)
    changed = codes.clone()
    changed[0, 3] = 5  # layer 1, group 1: only the second half of the channels may change
    difference = (residual.decode(changed) - residual.decode(codes))[0, :, 0]
    assert difference[:4].abs().max() == 0
    assert difference[4:].abs().max() > 0


def test_each_residual_layer_brings_the_values_closer() -> None:
    torch.manual_seed(0)
    config = GroupResidualConfig(num_layers=2, num_groups=1, codebook=CodebookConfig(size=64, dim=2, decay=0.9))
    quantizer = GroupResidualQuantizer(config)
    for _ in range(100):
        quantizer(torch.randn(4, 2, 128))
    quantizer.eval()
    x = torch.randn(4, 2, 128)
    first = quantizer.layers[0][0](x).values
    assert (quantizer(x).values - x).square().mean() < 0.3 * (first - x).square().mean()


def test_rows_beside_the_codebooks_keep_their_latents_and_teach_all_the_same() -> None:
    torch.manual_seed(0)
    book = Codebook(CodebookConfig(size=8, dim=4, ema=False))
    latents = torch.randn(3, 4, 5)
    whole = book(latents)
    partly = whole.beside(latents, 2)
    assert torch.equal(partly.values[:2], latents[:2])
    assert torch.equal(partly.values[2], whole.values[2])
    assert not torch.equal(whole.values[:2], latents[:2])
    assert torch.equal(partly.codes, whole.codes)
    assert partly.loss == whole.loss
