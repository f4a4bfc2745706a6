"""HyperPyYAML files read as data: tags become plain values, nothing they name is ever imported or called.

The published `inspiremusic.yaml` tags its nodes with `!new:`, `!name:`, `!apply:` and `!ref` (CHECKPOINTS.md 1, 2).
A tagged mapping becomes a dict whose key `CLASS` holds the last component of the class path; a tagged
sequence becomes a dict with the items under `ARGUMENTS`; `!ref <key>` becomes the value of that key.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from longplay.errors import CheckpointError

CLASS = "!class"
ARGUMENTS = "!arguments"
_REFERENCE = re.compile(r"<([^<>]+)>")
_MAX_DEPTH = 32


class _Reference(str):
    """The text of a `!ref` node, such as `<llm_input_size>`."""


class _DataLoader(yaml.SafeLoader):
    """`SafeLoader` for which every unknown tag is data."""


def _tagged(loader: _DataLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        text = str(loader.construct_scalar(node))
        if suffix == "ref":
            return _Reference(text)
        return {CLASS: _last_component(suffix)} if ":" in suffix else text
    if isinstance(node, yaml.SequenceNode):
        return {CLASS: _last_component(suffix), ARGUMENTS: loader.construct_sequence(node, deep=True)}
    if isinstance(node, yaml.MappingNode):
        return {CLASS: _last_component(suffix), **loader.construct_mapping(node, deep=True)}
    raise yaml.YAMLError(f"unsupported node with tag !{suffix}")


_DataLoader.add_multi_constructor("!", _tagged)


def read_tagged_yaml(path: Path) -> dict[str, Any]:
    """The file as plain dicts, lists and scalars, references resolved.

    A reference that is not just `<key>` or `<key.subkey>` (arithmetic, an unknown key) stays text: only keys that
    are used have to be understood.

    Raises:
        CheckpointError: missing, unreadable, not YAML, not a mapping, or a reference that refers to itself.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_DataLoader)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); download the model again") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: holds {type(data).__name__}, expected a mapping of keys to values")
    return {key: _resolve(value, data, path, 0) for key, value in data.items()}


def _resolve(value: Any, root: dict[str, Any], path: Path, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise CheckpointError(f"{path}: nested deeper than {_MAX_DEPTH} levels; does a !ref refer to itself?")
    if isinstance(value, dict):
        return {key: _resolve(item, root, path, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, root, path, depth + 1) for item in value]
    if not isinstance(value, _Reference):
        return value
    whole = _REFERENCE.fullmatch(value)
    target = _look_up(whole[1], root) if whole else None
    return str(value) if target is None else _resolve(target, root, path, depth + 1)


def _look_up(dotted: str, root: dict[str, Any]) -> Any:
    node: Any = root
    for key in dotted.replace("[", ".").replace("]", "").split("."):
        if not isinstance(node, dict) or key not in node:
            return None
        node = node[key]
    return node


def _last_component(suffix: str) -> str:
    return suffix.rpartition(":")[2].rpartition(".")[2]
