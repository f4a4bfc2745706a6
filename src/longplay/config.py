"""Configs: one strict, frozen base class, YAML files that are data only, dotted overrides.

A config class stands beside the thing it configures (`models/lm.py` has `LMConfig`). YAML never names
classes or code; unknown keys are errors.
"""

import math
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from longplay.errors import ConfigError

Rate = Annotated[
    float, Field(gt=0), PlainSerializer(lambda rate: int(rate) if rate == int(rate) else rate, when_used="json")
]
"""Frames or codes a second: 75, or 86.1328125 of 44.1 kHz in hops of 512."""


def same_rate(a: float, b: float) -> bool:
    """Whether two numbers are one `Rate`, however they were computed or written."""
    return math.isclose(a, b, rel_tol=1e-9)


class Config(BaseModel):
    """Strict and frozen: unknown keys and wrong types are errors, instances never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False, validate_default=True)

    @classmethod
    def parse(cls, data: Mapping[str, Any], source: str = "config") -> Self:
        """Validate `data`.

        Args:
            data: nested plain values.
            source: what to call the origin in an error message, e.g. a file name.

        Raises:
            ConfigError: naming each wrong key, its value and what is allowed.
        """
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise ConfigError(f"{source}: {describe(error, cls)}") from None

    @classmethod
    def load(cls, path: Path | str, overrides: Iterable[str] = ()) -> Self:
        """Read a YAML file and apply `key.sub=value` overrides.

        Raises:
            ConfigError: the file is missing, is not YAML, or does not fit.
        """
        data = read_yaml(path)
        return cls.parse(override(data, overrides), source=str(path))

    def dump(self) -> dict[str, Any]:
        """Plain values only, ready for YAML or JSON."""
        return self.model_dump(mode="json")


def read_yaml(path: Path | str) -> dict[str, Any]:
    """A YAML file as a dict of plain values (`yaml.safe_load`: no tag is ever constructed).

    Raises:
        ConfigError: missing, unreadable, not YAML, or not a mapping.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: is not valid YAML ({reason})") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds {type(data).__name__}, expected a mapping of keys to values")
    return data


def override(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `data` with each `a.b.c=value` applied; the value is read as YAML.

    Raises:
        ConfigError: an override without `=`, or one that descends into something that is not a mapping.
    """
    result: dict[str, Any] = _copy(data)
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {item!r}: expected key=value, e.g. lm.dim=256")
        *parents, leaf = key.split(".")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"override {item!r}: {parent!r} holds a value, not a group of keys")
        try:
            node[leaf] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"override {item!r}: {value!r} is not a YAML value") from None
    return result


def merge(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `data` with the values of `changes`, key by key also in what is nested."""
    result: dict[str, Any] = _copy(data)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if nested else value
    return result


def _copy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in data.items()}


def describe(error: ValidationError, cls: type[BaseModel]) -> str:
    """One line that names each wrong key of `cls`, its value (shortened) and what is allowed.

    What is wrong with several keys together says so itself; their values are the whole section, which helps nobody.
    """
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or cls.__name__
        message = item["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown key {key!r}; remove it or check its spelling")
        elif item["type"] == "missing":
            parts.append(f"key {key!r} is missing")
        elif isinstance(item["input"], dict) and item["type"] == "value_error":
            parts.append(f"{key}: {message}")
        else:
            parts.append(f"{key} = {reprlib.repr(item['input'])}: {message}")
    return "; ".join(parts)
