"""What a command needs of the optional packages."""

from collections.abc import Sequence
from importlib.util import find_spec

from longplay.errors import ConfigError

TRAINING = ("accelerate", "fsspec", "matplotlib", "pyarrow")  # of the extra `train`


def need(packages: Sequence[str], doing: str, extra: str, instead: str = "") -> None:
    """See that packages are installed.

    Args:
        packages: to import.
        doing: what needs them.
        extra: of longplay that has them.
        instead: what can be done without, if only the last one is missing.

    Raises:
        ConfigError: some are not; says which, and how to get them.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        without = instead if missing == [packages[-1]] else ""
        raise ConfigError(
            f"{doing} needs {', '.join(missing)}; install it with: pip install 'longplay[{extra}]'{without}"
        )
