"""In which form flow and codec compute."""

import logging

import torch

from longplay.checkpoint.system import System
from longplay.models.codec import Codec
from longplay.models.flow import Flow
from longplay.nn import processor
from longplay.nn.hifigan import HifiganGenerator
from longplay.nn.processor import has_bfloat16

MAX_ERROR = 0.05
"""Of a velocity, relative, that int8 transformers may add: as the flow's own error from solving in ten steps."""
_FRAMES, _TIME = 96, 0.5

logger = logging.getLogger(__name__)


def synthesis_dtype(device: torch.device) -> torch.dtype:
    """What flow and codec compute in: bfloat16 where the machine has instructions for it, else float32.

    Its error is a tenth of the flow's own, from solving in ten steps (docs/performance.md). Without AVX-512 BF16 a CPU
    converts back and forth, which is no faster.
    """
    return torch.bfloat16 if has_bfloat16(device) else torch.float32


def speed_up(system: System) -> None:
    """Let flow and codec compute in `synthesis_dtype`, and the flow's transformers in int8 where that is as good.

    What stays in float32 on a CPU, of a published codec, is decoded by kernels of our own where the machine can.

    Raises:
        LongplayError: a kernel cannot be compiled.
    """
    dtype = synthesis_dtype(system.device)
    if system.codec is not None:
        system.codec.decode_in(dtype)
        if dtype == torch.float32:
            use_kernels(system.codec, system.device)
    if system.flow is not None:
        system.flow.compute_in(dtype)
        if system.device.type == "cpu" and processor.can_compile():
            use_int8(system.flow)


def use_kernels(codec: Codec, device: torch.device) -> bool:
    """Let kernels of our own decode, of a published codec in float32 on a CPU; says whether they do.

    Raises:
        LongplayError: a kernel cannot be compiled.
    """
    decoder = codec.decoder
    if device.type != "cpu" or not processor.can_compile() or not isinstance(decoder, HifiganGenerator):
        return False
    decoder.use_kernels()
    return True


@torch.inference_mode()
def use_int8(flow: Flow) -> float:
    """Let int8 kernels compute the flow's transformers, unless they change a velocity by more than `MAX_ERROR`.

    Trained layers may have a few huge activations, which leave the others of their frame with few of the 8 bits.

    Returns:
        how much they change it, relative, on codes and noise drawn at random.

    Raises:
        LongplayError: the kernels cannot be compiled.
    """
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(flow.config.codebook_size, (1, _FRAMES), generator=generator)
    mu = flow.condition(codes)
    x = torch.randn(mu.shape, generator=generator)
    before = flow.velocity(x, mu, torch.tensor([_TIME]))
    flow.estimator.use_int8()
    error = ((flow.velocity(x, mu, torch.tensor([_TIME])) - before).norm() / before.norm()).item()
    if not error <= MAX_ERROR:
        logger.info("int8 changes the flow's velocities by %.0f %%: it computes without", 100 * error)
        flow.estimator.use_int8(False)
    return error
