"""`flow`: codes of the language model -> latents of the codec, by conditional flow matching (arXiv 2210.02747).

codes [B, T] at `code_rate` -> condition mu [B, D, T'] -> latents [B, D, T'] at `frame_rate`, T' = T * ratio. An encoder
and a length regulator make the condition; a U-Net estimates the velocity that carries noise x_0 along a straight
path to the latents x_1. Computation: CHECKPOINTS.md 3.4. Cost grows with the square of the length: `engine/windows.py`
runs it in windows.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from longplay.control import CHORD_WIDTH
from longplay.models.flow_config import FlowConfig
from longplay.nn import ode
from longplay.nn.conformer import Conformer
from longplay.nn.convnext import ConvNeXtEncoder, ConvNeXtEncoderConfig
from longplay.nn.length_regulator import LengthRegulator
from longplay.nn.masking import Padding, hide
from longplay.nn.ode import Method, cosine_time, grid
from longplay.nn.unet import UNet

CHORD_GAIN = 10.0  # an optimizer's steps are small beside the embeddings of the codes, which chords are added to


class Flow(nn.Module):
    """Codes to latents: `condition`, `sample`, `loss`."""

    latent_mean: Tensor
    latent_std: Tensor
    latent_spread: Tensor
    noise_taps: Tensor
    noise_mix: Tensor

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.input_embedding = nn.Embedding(config.codebook_size, config.input_dim)
        self.chord_projection = nn.Linear(CHORD_WIDTH, config.input_dim, bias=False) if config.chords else None
        if self.chord_projection is not None:
            nn.init.zeros_(self.chord_projection.weight)
        self.encoder = _encoder(config)
        self.length_regulator = LengthRegulator(config.encoder.dim, config.latent_dim, config.regulator_layers)
        self.estimator = UNet(config.latent_dim, config.estimator)
        if config.normalize_latents:
            self.register_buffer("latent_mean", torch.zeros(config.latent_dim))
            self.register_buffer("latent_std", torch.ones(config.latent_dim))
        if config.precondition:
            self.register_buffer("latent_spread", torch.ones(config.latent_dim))
        if config.noise_reach:
            self.register_buffer("noise_taps", torch.zeros(config.latent_dim, 2 * config.noise_reach + 1))
            self.noise_taps[:, config.noise_reach] = 1.0
            self.register_buffer("noise_mix", torch.eye(config.latent_dim))

    def set_latent_statistics(self, mean: Float[Tensor, " D"], std: Float[Tensor, " D"]) -> None:
        """Set, before training, what latents are normalised with.

        Raises:
            ValueError: the config has no `normalize_latents`, or a deviation is not positive.
        """
        if not self.config.normalize_latents:
            raise ValueError("latent statistics need normalize_latents: true in the flow's config")
        if not bool((std > 0).all()):
            raise ValueError(f"latent deviations must be positive, the smallest is {std.min().item():g}")
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)

    def white(
        self, shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None
    ) -> Float[Tensor, "B D T3"]:
        """Standard normal numbers that `noise` takes for latents of a shape [B, D, T]: `noise_reach` frames more on either side."""
        *outer, frames = shape
        return _draw(torch.randn, (*outer, frames + 2 * self.config.noise_reach), like, generator)

    def noise(self, white: Float[Tensor, "B D T3"]) -> Float[Tensor, "B D T"]:
        """x_0: normal in every channel, lasting as what the guess leaves of the latents lasts, its channels going together as there.

        Latents of overlapping windows change slowly, and so does what no guess knows of them. Noise that does likewise is such a
        rest already, but for what depends on the codes; out of independent numbers the estimator would have to make it
        first, which a small one does not learn (docs/experiments.md, 2026-11-29).
        """
        if not self.config.noise_reach:
            return white
        frames = white.shape[2] - 2 * self.config.noise_reach
        spectrum = torch.fft.rfft(white) * torch.fft.rfft(self.noise_taps, n=white.shape[2])
        return self.noise_mix @ torch.fft.irfft(spectrum, n=white.shape[2])[..., -frames:]

    def compute_in(self, dtype: torch.dtype) -> "Flow":
        """Let the networks compute in `dtype`, for sampling; the path they follow, and the statistics, stay float32."""
        for part in (self.input_embedding, self.chord_projection, self.encoder, self.length_regulator, self.estimator):
            if part is not None:
                part.to(dtype)
        return self

    def condition(
        self,
        codes: Int[Tensor, "B T"],
        length: int | None = None,
        code_lengths: Int[Tensor, " B"] | None = None,
        latent_lengths: Int[Tensor, " B"] | None = None,
        chords: Float[Tensor, "B T C"] | None = None,
    ) -> Float[Tensor, "B D T2"]:
        """Features of the codes at the rate of the latents.

        Args:
            codes: ids; padding may hold any id, or -1.
            length: latent frames that come out; default T * ratio.
            code_lengths: real codes per row of a padded batch; default all.
            latent_lengths: real latent frames per row; default `code_lengths` * ratio.
            chords: features of the chord at each code (`Control.chord_features`); zeros where none sounds; None: none is known.

        Returns:
            the condition mu, zero on padded frames.

        Raises:
            ValueError: there are chords, and the model takes none.
        """
        length = codes.shape[1] * self.config.ratio if length is None else length
        padding = self._padding(code_lengths, codes.shape[1])
        inputs = self.input_embedding(codes.clamp(min=0))
        if chords is not None:
            if self.chord_projection is None:
                raise ValueError("this model is told of no chords: FlowConfig.chords is false")
            inputs = inputs + CHORD_GAIN * self.chord_projection(chords.to(inputs))
        features = self.encoder(inputs, padding)
        padding_out = self._padding(self._stretched(code_lengths, latent_lengths), length)
        return self.length_regulator(features, length, padding, padding_out)

    def sample(
        self,
        codes: Int[Tensor, "B T"],
        white: Float[Tensor, "B D T3"] | None = None,
        *,
        code_lengths: Int[Tensor, " B"] | None = None,
        num_steps: int | None = None,
        guidance: float | None = None,
        solver: Method | None = None,
        temperature: float | None = None,
        generator: torch.Generator | None = None,
        chords: Float[Tensor, "B T C"] | None = None,
    ) -> Float[Tensor, "B D T2"]:
        """Latents of the codes.

        Args:
            codes: ids.
            white: standard normal numbers of T * ratio frames and `noise_reach` more on either side, of which `noise` is made; drawn from
                `generator` where they are not given.
            code_lengths: real codes per row of a padded batch; default all.
            num_steps: steps of the solver; default of the config.
            guidance: strength g of v = (1 + g) v(mu) - g v(0); 0 halves the work; default of the config.
            solver: see `nn/ode.py`; default of the config.
            temperature: deviation of the noise; less keeps nearer to what the codes make most likely; default of the config.
            generator: source of the noise.
            chords: as of `condition`.

        Returns:
            latents for the codec's decoder, zero on padded frames.
        """
        mu = self.condition(codes, code_lengths=code_lengths, chords=chords)
        if white is None:
            white = self.white(mu.shape, mu, generator)
        padding = self._padding(self._stretched(code_lengths), mu.shape[2])
        solver, num_steps = self.config.defaults(solver, num_steps)
        guidance = self.config.guidance if guidance is None else guidance
        temperature = self.config.temperature if temperature is None else temperature
        x_1 = self.solve(
            mu,
            temperature * self.noise(white),
            padding,
            num_steps=num_steps,
            guidance=guidance,
            solver=solver,
        )
        if self.config.normalize_latents:
            x_1 = x_1 * self.latent_std[:, None] + self.latent_mean[:, None]
        return hide(x_1, padding)

    def solve(
        self,
        mu: Float[Tensor, "B D T"],
        x_0: Float[Tensor, "B D T"],
        padding: Padding | None,
        *,
        num_steps: int,
        guidance: float,
        solver: Method,
    ) -> Float[Tensor, "B D T"]:
        """Carry noise to (normalised) latents under a condition; rows with and without it go in one batch.

        With `precondition`, unless paths are `straight`, what is solved is the equation of the rest y = (x_t - t mu) / sqrt(n) of `velocity`,
        which in the angle a = arctan(t s / (1 - t)) is dy/da = estimator(y, mu, t): where the estimator has nothing to say, any number
        of steps is exact.

        Raises:
            ValueError: guidance of a flow with `precondition`, which has no velocity without its condition.
        """
        times = grid(solver, num_steps, mu.device)
        if self.config.precondition and guidance:
            raise ValueError(
                f"guidance {guidance:g}: a flow with precondition starts from its condition and cannot be guided by it"
            )
        if self.config.precondition and not self.config.straight:
            rest = ode.solve(lambda y, t: self._said(y, mu, t[None], padding), x_0, times, solver, self._angle)
            return hide(mu.to(x_0.dtype) + self.latent_spread[:, None] * rest, padding)
        if guidance == 0:
            return ode.solve(lambda x, t: self.velocity(x, mu, t[None], padding), x_0, times, solver)
        both = torch.cat((mu, torch.zeros_like(mu)))
        twice = None if padding is None else Padding(padding.frames.repeat(2, 1, 1), padding.reference)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            with_mu, without = self.velocity(x.repeat(2, 1, 1), both, t[None], twice).chunk(2)
            return (1 + guidance) * with_mu - guidance * without

        return ode.solve(velocity, x_0, times, solver)

    def _angle(self, t: Float[Tensor, ""]) -> Float[Tensor, "D 1"]:
        """How far the noise has turned into what the guess leaves: 0 to pi / 2, in each channel at its own pace."""
        spread = self.latent_spread[:, None]
        return torch.atan2(t * spread, (1 - t).expand_as(spread))

    def _said(
        self, rest: Float[Tensor, "B D T"], mu: Tensor, t: Float[Tensor, " #B"], padding: Padding | None
    ) -> Tensor:
        """What the estimator says of the rest, in the rest's precision."""
        return self.estimator(rest.to(mu.dtype), mu, t, padding).to(rest.dtype)

    def velocity(
        self,
        x_t: Float[Tensor, "B D T"],
        mu: Float[Tensor, "B D T"],
        t: Float[Tensor, " #B"],
        padding: Padding | None = None,
    ) -> Float[Tensor, "B D T"]:
        """Where latents go at a time (one for each row, or one for all), in their own precision, whatever the estimator computes in.

        With `precondition`, mu is a guess of the latents that leaves a deviation s (`latent_spread`). What a line through x_t alone
        says of the velocity then needs no network, and the rest is scaled to deviation one: x_t - t mu has variance
        n = (1 - t)^2 + (t s)^2, and

            v = mu + (t s^2 - (1 - t)) / n (x_t - t mu) + s / sqrt(n) estimator((x_t - t mu) / sqrt(n), mu, t).

        So channels that are much smaller than the noise are not drowned in the estimator's own errors. Source: the preconditioning
        of EDM (arXiv 2206.00364), here for straight paths, for each channel, and around a guess.
        """
        if not self.config.precondition:
            return self._said(x_t, mu, t, padding)
        spread, time = self.latent_spread[:, None], t.view(-1, 1, 1)
        guess = mu.to(x_t.dtype)
        deviation = ((1 - time).square() + (time * spread).square()).sqrt()
        rest = (x_t - time * guess) / deviation
        said = self._said(rest, mu, t, padding)
        return hide(guess + ((time * spread.square() - (1 - time)) * rest + spread * said) / deviation, padding)

    def loss(
        self,
        codes: Int[Tensor, "B T"],
        latents: Float[Tensor, "B D T2"],
        code_lengths: Int[Tensor, " B"] | None = None,
        latent_lengths: Int[Tensor, " B"] | None = None,
        *,
        generator: torch.Generator | None = None,
        chords: Float[Tensor, "B T C"] | None = None,
    ) -> Float[Tensor, ""]:
        """Flow-matching loss of a batch, with random times, noise and dropped conditions.

        Args:
            codes: ids of the tokenizer.
            latents: the codec's latents of the same audio; their rate need not be an exact multiple.
            code_lengths: real codes per row; default all.
            latent_lengths: real latent frames per row; default `code_lengths` * ratio.
            generator: source of the draws; the default one of torch otherwise.
            chords: as of `condition`; none is dropped here.

        Returns:
            mean squared error per real latent value, of the velocity and, with `precondition`, of the guess.
        """
        mu = self.condition(codes, latents.shape[2], code_lengths, latent_lengths, chords)
        x_0 = self.noise(self.white(latents.shape, latents, generator))
        t = cosine_time(_draw(torch.rand, latents.shape[:1], latents, generator))
        keep = _draw(torch.rand, latents.shape[:1], latents, generator) > self.config.condition_dropout
        padding = self._padding(self._stretched(code_lengths, latent_lengths), latents.shape[2])
        return self.velocity_loss(mu, self.normalize(latents), x_0, t, keep, padding)

    def normalize(self, latents: Float[Tensor, "B D T"]) -> Float[Tensor, "B D T"]:
        """x_1 of the codec's latents: standardised if the config says so."""
        if not self.config.normalize_latents:
            return latents
        return (latents - self.latent_mean[:, None]) / self.latent_std[:, None]

    def velocity_loss(
        self,
        mu: Float[Tensor, "B D T"],
        x_1: Float[Tensor, "B D T"],
        x_0: Float[Tensor, "B D T"],
        t: Float[Tensor, " B"],
        keep: Bool[Tensor, " B"],
        padding: Padding | None = None,
    ) -> Float[Tensor, ""]:
        """The loss for given draws: how far the estimate is from the straight path's velocity.

        Args:
            mu: condition.
            x_1: data.
            x_0: noise.
            t: times.
            keep: rows that keep their condition.
            padding: padded frames, which do not count.
        """
        shrink = 1 - self.config.sigma_min
        t = t[:, None, None]
        x_t = (1 - shrink * t) * x_0 + t * x_1
        target = x_1 - shrink * x_0
        estimate = self.velocity(x_t, mu * keep[:, None, None], t.flatten(), padding)
        error = hide(estimate.float() - target, padding).square().sum()
        if self.config.precondition:  # the condition learns to be a guess
            error = error + hide(mu.float() - x_1, padding).square().sum()
        frames = x_1.shape[0] * x_1.shape[2] if padding is None else padding.frames.sum()
        return error / (frames * x_1.shape[1])

    def _stretched(self, code_lengths: Tensor | None, latent_lengths: Tensor | None = None) -> Tensor | None:
        if latent_lengths is None and code_lengths is not None:
            return code_lengths * self.config.ratio
        return latent_lengths

    def _padding(self, lengths: Tensor | None, length: int) -> Padding | None:
        if lengths is None:
            return None
        return Padding.of(lengths, length, reference=self.config.compatibility == "reference")


def _encoder(config: FlowConfig) -> Conformer | ConvNeXtEncoder:
    if isinstance(config.encoder, ConvNeXtEncoderConfig):
        return ConvNeXtEncoder(config.input_dim, config.encoder)
    return Conformer(config.input_dim, config.encoder)


def _draw(
    distribution: Callable[..., Tensor], shape: Sequence[int], like: Tensor, generator: torch.Generator | None
) -> Tensor:
    # Drawn where the generator lives, so that a CPU seed gives the same numbers on every device.
    device = like.device if generator is None else generator.device
    return distribution(shape, generator=generator, device=device).to(like.device)
