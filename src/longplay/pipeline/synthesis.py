"""In which form flow and codec compute: the fastest whose error, measured on these weights when they are loaded, is small."""

import copy
import logging

import torch

from longplay.checkpoint.system import System
from longplay.models.codec import Codec
from longplay.models.flow import Flow
from longplay.nn import processor
from longplay.nn.hifigan import HifiganGenerator
from longplay.nn.processor import has_bfloat16

MAX_ERROR = 0.05
"""Of a velocity, relative, that bfloat16 may change, and int8 transformers: as the flow's own error from solving in ten steps."""
MAX_WAVE_ERROR = 0.02
"""Of a wave, relative, that bfloat16 may change: 34 dB below it."""
_FRAMES, _TIME, _DECODED_FRAMES = 96, 0.5, 32

logger = logging.getLogger(__name__)


def synthesis_dtype(device: torch.device) -> torch.dtype:
    """What flow and codec compute in if their weights bear it: bfloat16 where the machine has instructions for it, else float32.

    Without AVX-512 BF16 a CPU converts back and forth, which is no faster.
    """
    return torch.bfloat16 if has_bfloat16(device) else torch.float32


def speed_up(system: System) -> None:
    """Let flow and codec compute in `synthesis_dtype`, and the flow's transformers in int8, each where that is as good.

    What stays in float32 on a CPU, of a published codec, is decoded by kernels of our own where the machine can.

    Raises:
        LongplayError: a kernel cannot be compiled.
    """
    half = synthesis_dtype(system.device) == torch.bfloat16
    if system.codec is not None and not (half and decode_in_half(system.codec) <= MAX_WAVE_ERROR):
        use_kernels(system.codec, system.device)
    if system.flow is not None:
        if half:
            compute_in_half(system.flow)
        if system.device.type == "cpu" and processor.can_compile():
            use_int8(system.flow)


@torch.inference_mode()
def decode_in_half(codec: Codec) -> float:
    """Let the decoder compute in bfloat16, unless that changes a wave by more than `MAX_WAVE_ERROR`.

    Decoders that derive phases from magnitudes are left in float32: small changes of those make other phases.

    Returns:
        how much it changes it, relative, for codes drawn at random.
    """
    config, device = codec.config, next(codec.decoder.parameters()).device
    shape = (1, config.num_codebooks, _DECODED_FRAMES)
    codes = torch.randint(config.codebook_size, shape, generator=torch.Generator().manual_seed(0)).to(device)
    latents, wide = codec.embed(codes), codec.decoder
    before = codec.decode(latents)
    codec.decoder = copy.deepcopy(wide)
    error = _change(codec.decode_in(torch.bfloat16).decode(latents), before)
    if not error <= MAX_WAVE_ERROR:
        logger.info("bfloat16 changes the codec's waves by %.1f %%: it computes in float32", 100 * error)
        codec.decoder = wide
    return error


@torch.inference_mode()
def compute_in_half(flow: Flow) -> float:
    """Let the flow compute in bfloat16, unless that changes a velocity by more than `MAX_ERROR`.

    Returns:
        how much it changes it, relative, on codes and noise drawn at random.
    """
    wide, before = copy.deepcopy(flow.state_dict()), _velocity(flow)
    error = _change(_velocity(flow.compute_in(torch.bfloat16)), before)
    if not error <= MAX_ERROR:
        logger.info("bfloat16 changes the flow's velocities by %.1f %%: it computes in float32", 100 * error)
        flow.compute_in(torch.float32).load_state_dict(wide)
    return error


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
    before = _velocity(flow)
    flow.estimator.use_int8()
    error = _change(_velocity(flow), before)
    if not error <= MAX_ERROR:
        logger.info("int8 changes the flow's velocities by %.0f %%: it computes without", 100 * error)
        flow.estimator.use_int8(False)
    return error


def _velocity(flow: Flow) -> torch.Tensor:
    """Of noise, under the condition of some codes, both drawn at random but always the same."""
    generator, device = torch.Generator().manual_seed(0), flow.input_embedding.weight.device
    codes = torch.randint(flow.config.codebook_size, (1, _FRAMES), generator=generator).to(device)
    mu = flow.condition(codes)
    x = torch.randn(mu.shape, generator=generator).to(device)
    return flow.velocity(x, mu, torch.tensor([_TIME], device=device)).float()


def _change(made: torch.Tensor, before: torch.Tensor) -> float:
    return ((made - before).norm() / before.norm()).item()
