import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from longplay.nn.conv import ReflectConv1d, WeightNormConv1d, WeightNormConvTranspose1d, fold_weight_norm, pad_reflect


def scaled(conv: WeightNormConv1d | WeightNormConvTranspose1d) -> None:
    """Lengths unlike those of the directions, so that both matter."""
    with torch.no_grad():
        conv.weight_g.uniform_(0.5, 2.0)


def signal(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 1, -1)


def test_conv_equals_torch_weight_norm() -> None:
    conv = WeightNormConv1d(3, 5, 4, stride=2, padding=1, dilation=3)
    scaled(conv)
    reference = weight_norm(nn.Conv1d(3, 5, 4, stride=2, padding=1, dilation=3), dim=0)
    values = {"weight.original0": conv.weight_g, "weight.original1": conv.weight_v}
    reference.load_state_dict({"bias": conv.bias} | {f"parametrizations.{key}": value for key, value in values.items()})
    x = torch.randn(2, 3, 20)
    torch.testing.assert_close(conv(x), reference(x), rtol=0, atol=1e-6)


def test_transposed_conv_normalises_over_its_input_channels() -> None:
    conv = WeightNormConvTranspose1d(6, 3, 4, stride=2, padding=1)
    scaled(conv)
    assert conv.weight_g.shape == (6, 1, 1)
    reference = weight_norm(nn.ConvTranspose1d(6, 3, 4, stride=2, padding=1), dim=0)
    values = {"weight.original0": conv.weight_g, "weight.original1": conv.weight_v}
    reference.load_state_dict({"bias": conv.bias} | {f"parametrizations.{key}": value for key, value in values.items()})
    x = torch.randn(2, 6, 9)
    torch.testing.assert_close(conv(x), reference(x), rtol=0, atol=1e-6)
    assert conv(x).shape == (2, 3, 18)


def test_folding_replaces_nested_convolutions_and_keeps_the_function() -> None:
    inner = nn.Sequential(ReflectConv1d(4, 4, 3, dilation=2), WeightNormConvTranspose1d(4, 2, 6, stride=2, padding=2))
    model = nn.Sequential(WeightNormConv1d(1, 4, 3, padding=1), nn.ELU(), inner)
    for module in model.modules():
        if isinstance(module, WeightNormConv1d | WeightNormConvTranspose1d):
            scaled(module)
    x = torch.randn(2, 1, 30)
    before = model(x)
    fold_weight_norm(model)
    names = {name.rpartition(".")[2] for name in model.state_dict()}
    assert names == {"weight", "bias"}
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-6)


def test_reflection_mirrors_without_repeating_the_edge() -> None:
    assert torch.equal(pad_reflect(signal(1, 2, 3, 4), 2, 1), signal(3, 2, 1, 2, 3, 4, 3))


def test_a_signal_too_short_to_mirror_is_lengthened_with_zeros_first() -> None:
    assert torch.equal(pad_reflect(signal(1, 2), 3, 2), signal(0, 0, 2, 1, 2, 0, 0))
