from itertools import pairwise

import torch

from longplay.engine.noise import BLOCK_FRAMES, FrameNoise


def test_any_split_gives_the_same_noise() -> None:
    noise = FrameNoise((3,), dim=4)
    whole = noise(0, 3 * BLOCK_FRAMES)
    cuts = [0, 1, BLOCK_FRAMES - 1, BLOCK_FRAMES, 2 * BLOCK_FRAMES + 5, 3 * BLOCK_FRAMES]
    parts = [noise(start, stop) for start, stop in pairwise(cuts)]
    assert torch.equal(torch.cat(parts, dim=-1), whole)
    assert torch.equal(noise(70, 90), whole[:, :, 70:90])


def test_a_row_is_the_same_alone_and_in_a_batch() -> None:
    batch = FrameNoise((3, 5), dim=4)(10, 200)
    assert torch.equal(batch[1:], FrameNoise((5,), dim=4)(10, 200))
    assert not torch.equal(batch[0], batch[1])


def test_the_noise_is_standard_normal_and_blocks_differ() -> None:
    noise = FrameNoise((0,), dim=8)(0, 512 * BLOCK_FRAMES)[0]
    assert abs(noise.mean().item()) < 0.01
    assert abs(noise.std().item() - 1) < 0.01
    neighbours = noise[:, :BLOCK_FRAMES].flatten(), noise[:, BLOCK_FRAMES : 2 * BLOCK_FRAMES].flatten()
    assert abs(torch.corrcoef(torch.stack(neighbours))[0, 1].item()) < 0.15
