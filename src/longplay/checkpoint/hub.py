"""Models by name: the bundled one, a directory, Hugging Face, ModelScope.

```
nano                                        ships with the package
path/to/model                               a native or published model directory
FunAudioLLM/InspireMusic-1.5B-Long          Hugging Face; InspireMusic-1.5B-Long for short
FunAudioLLM/InspireMusic-1.5B-Long@v1.0     ... a branch, tag or commit
modelscope:iic/InspireMusic-1.5B-Long       ModelScope, also with @revision
```

Downloads resume, land in the hub's own cache (`HF_HOME`, `MODELSCOPE_CACHE`) and show progress. With
`HF_HUB_OFFLINE=1`, or `offline=True`, only what the cache holds is used.
"""

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from longplay.checkpoint import modelscope
from longplay.errors import CheckpointError, DownloadError

# The reference needs Qwen's own weights to build its module and then overwrites all of them (CHECKPOINTS.md 1). In a repository
# of Qwen's they are what there is: a training run may start from them.
BASE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
QWEN = "qwen/"
BUNDLED = ("nano",)


@dataclass(frozen=True)
class KnownModel:
    """A published model: its name, its repository on each hub, and what it makes."""

    name: str
    huggingface: str
    modelscope: str
    sample_rate: int
    about: str


def _known(name: str, sample_rate: int, about: str, modelscope_name: str | None = None) -> KnownModel:
    return KnownModel(name, f"FunAudioLLM/{name}", f"iic/{modelscope_name or name}", sample_rate, about)


KNOWN = (
    _known("InspireMusic-Base-24kHz", 24000, "0.5B, 24 kHz"),
    _known("InspireMusic-Base", 48000, "0.5B, 48 kHz", "InspireMusic"),
    _known("InspireMusic-1.5B-24kHz", 24000, "1.5B, 24 kHz"),
    _known("InspireMusic-1.5B", 48000, "1.5B, 48 kHz"),
    _known("InspireMusic-1.5B-Long", 48000, "1.5B, 48 kHz, pieces of minutes"),
)


@dataclass(frozen=True)
class HubName:
    """A repository on a hub, at a revision."""

    hub: Literal["huggingface", "modelscope"]
    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        prefix = "modelscope:" if self.hub == "modelscope" else ""
        return prefix + self.repository + (f"@{self.revision}" if self.revision else "")


def parse_hub_name(text: str) -> HubName | None:
    """`owner/name[@revision]`, with `modelscope:` in front for ModelScope, or a known short name; None for others."""
    name, _, revision = text.partition("@")
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    if name.startswith("modelscope:"):
        hub, name = "modelscope", name.removeprefix("modelscope:")
    short = {model.name: model for model in KNOWN}.get(name)
    if short is not None:
        name = short.huggingface if hub == "huggingface" else short.modelscope
    owner, slash, repository = name.partition("/")
    plain = all(part and not part.startswith((".", "~")) and "\\" not in part for part in (owner, repository))
    if not slash or not plain or "/" in repository:
        return None
    return HubName(hub, name, revision or None)


def locate(name_or_path: str | Path, offline: bool = False) -> Path:
    """The directory of a model, downloaded first where need be. A directory of that name wins over a hub.

    Raises:
        CheckpointError: neither a directory nor a name.
        DownloadError: the hub cannot be reached, has no such model or revision, or the download was cut.
    """
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if name in BUNDLED:
        return bundled_directory(name)
    if path.is_dir():
        return path
    hub_name = parse_hub_name(name) if isinstance(name_or_path, str) else None
    if hub_name is None or name.endswith(("/", os.sep)):
        raise CheckpointError(f"model {name!r}: no such directory; give a model directory, 'nano' or a name on a hub")
    return download(hub_name, offline=offline)


def bundled_directory(name: str) -> Path:
    """Where a model that ships with the package lies.

    Raises:
        CheckpointError: this installation does not contain it.
    """
    directory = Path(str(files("longplay").joinpath("bundled", name)))
    if not directory.is_dir():
        raise CheckpointError(f"model {name!r}: is not part of this installation; reinstall longplay")
    return directory


def download(name: HubName, offline: bool = False, complete: bool = False) -> Path:
    """Fetch a model, or find it in the cache.

    Args:
        name: which.
        offline: use the cache only.
        complete: also fetch the base weights of Qwen that lie beside music models, which only the public code needs.

    Raises:
        DownloadError: see `locate`.
    """
    ignore = () if complete or name.repository.lower().startswith(QWEN) else BASE_WEIGHTS
    if name.hub == "modelscope":
        return modelscope.download(name.repository, name.revision or "master", ignore, offline or _offline())
    return _download_huggingface(name, ignore, offline)


def _download_huggingface(name: HubName, ignore: tuple[str, ...], offline: bool) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    try:
        directory = huggingface_hub.snapshot_download(
            name.repository,
            revision=name.revision,
            ignore_patterns=list(ignore),
            local_files_only=offline,
            library_name="longplay",
        )
    except errors.GatedRepoError:
        raise DownloadError(f"model {name}: needs an account with access; run `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise DownloadError(f"model {name}: Hugging Face has no such model; see `longplay models list`") from None
    except errors.RevisionNotFoundError:
        raise DownloadError(f"model {name}: has no such revision; leave out @{name.revision} for the newest") from None
    except errors.LocalEntryNotFoundError as error:
        why = "offline, and not (wholly) in the cache" if offline or _offline() else "Hugging Face cannot be reached"
        raise DownloadError(f"model {name}: {why}; connect and try again") from error
    except Exception as error:  # the client raises its HTTP library's many kinds
        raise DownloadError(f"model {name}: the download failed ({_first_line(error)}); run again to resume") from error
    return Path(directory)


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
