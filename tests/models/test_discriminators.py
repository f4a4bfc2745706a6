"""What discriminators see, and what they do not."""

import pytest
import torch

from longplay.errors import ConfigError
from longplay.models.discriminators import DiscriminatorConfig, Discriminators, ResolutionDiscriminator


def test_one_list_of_maps_for_each_period_and_size() -> None:
    made = Discriminators(DiscriminatorConfig(periods=(2, 3), n_ffts=(64,), channels=4))(torch.randn(2, 1, 640))
    assert [len(maps) for maps in made] == [5, 5, 5]
    assert all(maps[-1].shape[:2] == (2, 1) for maps in made)


@torch.inference_mode()
def test_without_phase_only_magnitudes_count() -> None:
    torch.manual_seed(0)
    wav = torch.randn(1, 1, 4096)
    seen, blind = (ResolutionDiscriminator(64, 4, phase) for phase in (True, False))
    for other, same in ((-wav, True), (0.5 * wav, False)):
        off = [float((member(other)[-1] - member(wav)[-1]).abs().max()) for member in (seen, blind)]
        assert off[0] > 1e-3
        assert (off[1] < 1e-5) == same


def test_silence_is_no_trouble() -> None:
    wav = torch.zeros(1, 1, 640, requires_grad=True)
    Discriminators(DiscriminatorConfig(periods=(), n_ffts=(64,), channels=4, phase=False))(wav)[0][-1].sum().backward()
    assert wav.grad is not None
    assert wav.grad.isfinite().all()


def test_samples_show_phases_too() -> None:
    with pytest.raises(ConfigError, match=r"phase = false.*periods to \[\]"):
        DiscriminatorConfig.parse({"phase": False})
