"""Sizes of `lm`, and how it was trained to be used."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from longplay.config import Config, Rate


class LMConfig(Config):
    """Sizes of the language model.

    Attributes:
        text_vocab_size: rows of the text embedding; may exceed what the text tokenizer uses.
        codebook_size: of the tokenizer; eos is the class after the last code.
        code_rate: codes per second.
        num_labels: rows of the structure embedding.
        unlabelled: label id of a stretch without a section; published models know no better than intro.
        text_dropout: share of rows that train without their text, which is what guidance needs.
        float16_time: round time vectors to float16, as the published models do (CHECKPOINTS.md 7, item 3).
        context_frames: codes of history that the model was trained on; None: a whole piece.
        control: whether it takes bars, tempo and key of the codes, and the mean of the text beside them; published models
            do not.
        chords: whether `control` says which chord sounds, too.
        style_dim: how many numbers say how the music is to sound (`data/styles.py`); the words stand for them where they are not
            given. 0: the model takes none.
        max_repeat: at which share of the latest codes one is drawn again, unless an option says otherwise (`prompt.py`); None: never.
    """

    text_vocab_size: PositiveInt
    codebook_size: PositiveInt
    code_rate: Rate
    num_labels: PositiveInt
    dim: PositiveInt
    num_layers: PositiveInt
    num_heads: PositiveInt
    num_kv_heads: PositiveInt
    intermediate_dim: PositiveInt
    rope_theta: float = Field(default=1e6, gt=1.0)
    norm_eps: float = Field(default=1e-6, gt=0.0)
    unlabelled: int = Field(default=0, ge=0)
    text_dropout: float = Field(default=0.2, ge=0.0, le=1.0)
    float16_time: bool = False
    context_frames: int | None = Field(default=None, ge=2)
    control: bool = False
    chords: bool = False
    style_dim: int = Field(default=0, ge=0)
    max_repeat: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> "LMConfig":
        if self.dim % (2 * self.num_heads):
            raise ValueError(f"dim {self.dim} must be a multiple of twice num_heads {self.num_heads}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} must be a multiple of num_kv_heads {self.num_kv_heads}")
        if self.chords and not self.control:
            raise ValueError("chords are part of control: set control")
        if self.unlabelled >= self.num_labels:
            raise ValueError(f"unlabelled {self.unlabelled} must be below num_labels {self.num_labels}")
        return self

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.num_heads

    @property
    def eos(self) -> int:
        """The class that ends a piece."""
        return self.codebook_size

    @classmethod
    def published(cls, size: Literal["base", "1.5b"]) -> "LMConfig":
        """The published sizes (CHECKPOINTS.md 2.3)."""
        base = size == "base"
        return cls(
            text_vocab_size=151936,
            codebook_size=4096,
            code_rate=75,
            num_labels=5,
            dim=896 if base else 1536,
            num_layers=24 if base else 28,
            num_heads=14 if base else 12,
            num_kv_heads=2,
            intermediate_dim=4864 if base else 8960,
            float16_time=True,
        )
