"""The public names: these and no others; and importing the package stays cheap."""

import subprocess
import sys

import pytest

import longplay


def test_the_public_names_are_these() -> None:
    assert dir(longplay) == [
        "Audio",
        "Finish",
        "GenerationOptions",
        "LongplayError",
        "Pipeline",
        "Prompt",
        "Section",
        "__version__",
    ]
    assert all(getattr(longplay, name) for name in longplay.__all__)


def test_other_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Pipelin'"):
        longplay.Pipelin  # noqa: B018


def test_importing_the_package_imports_nothing_slow() -> None:
    code = "import sys, longplay; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
