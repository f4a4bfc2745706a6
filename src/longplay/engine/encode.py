"""Audio of any length to codes, in windows: exact where the encoder's receptive field is finite."""

from torch import Tensor, nn

from longplay.engine.windows import WindowPlan, run_windows
from longplay.models.codec import Codec
from longplay.models.tokenizer import Tokenizer
from longplay.nn.spectral import ComponentsEncoder, SpectralEncoder

WINDOW_SECONDS = 30.0
UNBOUNDED_SECONDS = 5.0  # what an encoder hears around a window where its receptive field has no end


def context_frames(model: Tokenizer | Codec) -> int:
    """Frames that an encoder has to hear on each side of a window."""
    if isinstance(model.encoder, SpectralEncoder | ComponentsEncoder):
        return model.encoder.receptive_field
    return round(UNBOUNDED_SECONDS * model.config.frame_rate)


def encode(model: Tokenizer | Codec, wav: Tensor) -> Tensor:
    """Codes [1, T] (tokenizer), or [1, K, T] (codec, or a tokenizer of several codebooks), of mono audio [1, 1, S] at the model's rate."""
    config, hop = model.config, model.config.hop_length
    frames = nn.functional.pad(wav[0, 0], (0, -wav.shape[-1] % hop)).view(1, -1, hop).transpose(1, 2)  # [1, hop, T]
    # codes that overlap are found as in the whole where windows begin on their grid and hear as far as the search looks
    grid, reach = (model.quantizer.config.overlap, model.quantizer.reach) if isinstance(model, Codec) else (1, 0)
    step, context = round(WINDOW_SECONDS * config.frame_rate), context_frames(model) + reach
    plan = WindowPlan(step - step % grid, context + -context % grid, fade=0, ratio=1)

    def run(window: Tensor, _: int) -> Tensor:
        return model.encode(window.transpose(1, 2).reshape(1, 1, -1))

    return run_windows(run, frames, plan)
