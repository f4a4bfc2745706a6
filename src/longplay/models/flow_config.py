"""Rates and sizes of `flow`, and how it is sampled."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag, model_validator

from longplay.config import Config, Rate, same_rate
from longplay.nn.conformer import ConformerConfig
from longplay.nn.convnext import ConvNeXtEncoderConfig
from longplay.nn.ode import Method, evaluations
from longplay.nn.unet import UNetConfig

PUBLISHED_SOLVER: tuple[Method, int] = ("euler", 10)
"""How the published code samples: method and steps."""


def _kind(encoder: Any) -> str:
    """Which encoder a config is of; the published one does not say."""
    given = encoder.get("kind") if isinstance(encoder, dict) else getattr(encoder, "kind", None)
    return "convnext" if given is not None else "conformer"


EncoderConfig = Annotated[
    Annotated[ConformerConfig, Tag("conformer")] | Annotated[ConvNeXtEncoderConfig, Tag("convnext")],
    Discriminator(_kind),
]


class FlowConfig(Config):
    """Rates and sizes of the flow model.

    Attributes:
        code_rate: codes per second.
        frame_rate: latent frames per second, a multiple of `code_rate`.
        condition_dropout: share of rows that train without their condition, which is what guidance needs.
        num_steps, solver, guidance, temperature: defaults of `Flow.sample`.
        normalize_latents: train on latents of mean 0 and deviation 1 (`Flow.set_latent_statistics`).
        precondition: let the condition be a guess of the latents, and the estimator say only what the guess leaves, in numbers
            of deviation one in every channel at every time (`Flow.velocity`). Needs `normalize_latents`, and no guidance.
        noise_reach: frames on either side over which the noise is smoothed, so that it lasts as long as what the guess leaves does, and
            its channels go together likewise (`Flow.noise`); 0: all its numbers are independent, as published. Needs `precondition`.
        straight: its paths were made straight (stage flow, `reflow`): the velocity itself is followed then, which is constant on them;
            else, with `precondition`, the equation of the rest (`Flow.solve`).
        chords: whether it is told which chord sounds (`control.py`); codes say little of the pitches. Published models are not.
        chord_dropout: share of rows that train without, as recordings come that are only reconstructed.
        compatibility: "reference" treats padded frames as the published training did, see `nn/masking.py`.
    """

    codebook_size: PositiveInt
    code_rate: Rate
    frame_rate: Rate
    input_dim: PositiveInt
    latent_dim: PositiveInt
    encoder: EncoderConfig
    regulator_layers: NonNegativeInt
    estimator: UNetConfig
    sigma_min: float = Field(default=1e-6, ge=0.0, lt=1.0)
    condition_dropout: float = Field(default=0.2, ge=0.0, le=1.0)
    num_steps: PositiveInt = 10
    solver: Method = "euler"
    guidance: float = Field(default=0.7, ge=0.0)
    temperature: float = Field(default=1.0, ge=0.0, le=1.0)
    normalize_latents: bool = False
    precondition: bool = False
    noise_reach: NonNegativeInt = 0
    straight: bool = False
    chords: bool = False
    chord_dropout: float = Field(default=0.2, ge=0.0, le=1.0)
    compatibility: Literal["exact", "reference"] = "exact"

    @model_validator(mode="after")
    def _rates_divide(self) -> "FlowConfig":
        if self.ratio < 1 or not same_rate(self.ratio * self.code_rate, self.frame_rate):
            raise ValueError(f"frame_rate {self.frame_rate:.12g} must be a multiple of code_rate {self.code_rate:.12g}")
        return self

    @model_validator(mode="after")
    def _precondition_stands_on_the_condition(self) -> "FlowConfig":
        if self.precondition and not self.normalize_latents:
            raise ValueError("precondition needs the statistics of the latents; set normalize_latents: true")
        if self.precondition and (self.condition_dropout or self.guidance):
            raise ValueError(
                f"precondition starts from the condition (condition_dropout {self.condition_dropout:g}, guidance {self.guidance:g}); "
                "set both to 0"
            )
        if self.noise_reach and not self.precondition:
            raise ValueError(
                f"noise_reach = {self.noise_reach} follows what a guess leaves; set precondition: true, or noise_reach: 0"
            )
        return self

    @property
    def ratio(self) -> int:
        """Latent frames per code."""
        return round(self.frame_rate / self.code_rate)

    def defaults(self, solver: Method | None, num_steps: int | None) -> tuple[Method, int]:
        """What is given, and this model's own choice where nothing is; the number of steps suits the solver."""
        if solver is None or solver == self.solver:
            return self.solver, num_steps or self.num_steps
        return solver, num_steps or max(1, evaluations(self.solver, self.num_steps) // evaluations(solver, 1))

    @classmethod
    def published(cls, frame_rate: int = 150) -> "FlowConfig":
        """The published sizes (CHECKPOINTS.md 2): 150 frames a second for 48 kHz, 75 for 24 kHz.

        The solver is not `PUBLISHED_SOLVER`, but one as near to the exact path for half of the cost.
        """
        return cls(
            codebook_size=4096,
            code_rate=75,
            frame_rate=frame_rate,
            input_dim=256,
            latent_dim=512,
            encoder=ConformerConfig(dim=512, num_layers=3, num_heads=4, hidden_dim=1024),
            regulator_layers=4,
            estimator=UNetConfig(channels=(256, 256), num_blocks=(4, 4), num_mid_blocks=8, num_heads=8, head_dim=64),
            solver="ab2",
            num_steps=5,
        )
