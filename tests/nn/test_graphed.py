import pytest
import torch

from longplay.nn.graphed import GraphedStep, step
from tiny_lm import tiny_lm


def logits(device: str, graphed: bool, bucket: int = 4) -> torch.Tensor:
    lm = tiny_lm().to(device)
    decoder = lm.decoder()
    cache = lm.cache(3, 30)
    generator = torch.Generator().manual_seed(0)
    run = GraphedStep(decoder, bucket) if graphed else None
    made = []
    with torch.inference_mode():
        decoder(torch.randn(3, 5, 32, generator=generator).to(device), cache, torch.tensor([5, 2, 4], device=device))
        counts = torch.tensor([1, 1, 0], device=device)  # the last row idles
        for _ in range(12):
            inputs = torch.randn(3, 1, 32, generator=generator).to(device)
            found = run(inputs, cache, counts) if run is not None else step(decoder, inputs, cache, counts)
            made.append(found.cpu().clone())
    assert cache.lengths.tolist() == [17, 14, 4]
    assert cache.longest == 17
    return torch.stack(made)


@pytest.mark.parametrize("bucket", [4, 7, 64])
def test_whole_buckets_change_nothing(bucket: int) -> None:
    torch.testing.assert_close(logits("cpu", True, bucket), logits("cpu", False), atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
def test_captured_steps_equal_plain_ones() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.testing.assert_close(logits("cuda", True), logits("cuda", False), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits("cuda", True), logits("cpu", False), atol=1e-4, rtol=1e-4)
