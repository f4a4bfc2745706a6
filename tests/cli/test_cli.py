"""The entry point: help, version, start-up, and what every command shares."""

import subprocess
import sys
from pathlib import Path

import pytest

from longplay import __version__
from longplay.audio import Finish
from longplay.cli.options import RequestOptions
from longplay.cli.request import Request
from longplay.prompt import GenerationOptions


def test_help_names_every_command(run) -> None:
    outcome = run("--help")
    assert outcome.code == 0
    for command in ("generate", "continue", "reconstruct", "upscale", "models", "data", "train", "evaluate"):
        assert command in outcome.out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from longplay.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'soundfile', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_installed_command_reports_errors_on_one_line_with_code_2() -> None:
    command = [sys.executable, "-c", "from longplay.cli import main; main()", "generate", ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: the prompt is empty; describe the music in a few words, e.g. 'calm piano, 80 bpm'\n"


@pytest.mark.parametrize(
    "command",
    [
        ("run", "nano-lm", "--run", "e", "--data", "e"),
        ("tokens", "--model", "nano", "a.jsonl", "e"),
        ("takes", "--model", "nano", "a.jsonl", "e"),
        ("plan", "nano-lm"),
        ("status", "e"),
    ],
)
def test_a_package_that_training_lacks_is_named_with_its_remedy(command: tuple[str, ...], tmp_path: Path) -> None:
    code = f"import sys; sys.modules['pyarrow'] = None; from longplay.cli import main; main(['train', *{command}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: training needs pyarrow; install it with: pip install 'longplay[train]'\n"


def test_a_module_of_no_extra_is_a_bug_and_shows_itself() -> None:
    code = (
        "from longplay import cli\n"
        "def fails(arguments): raise ModuleNotFoundError(name='nowhere')\n"
        "cli.app = fails\n"
        "cli.main([])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("OSError(28, 'No space left on device', 'a/b.wav')", "a/b.wav: No space left on device"),
        ("OSError('cannot\\nsend')", "cannot send"),
    ],
)
def test_what_the_system_refuses_is_one_line_with_code_2(error: str, line: str) -> None:
    code = f"from longplay import cli\ndef fails(arguments): raise {error}\ncli.app = fails\ncli.main([])\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {line}; mend that, or choose another place, and give the same command again\n"


def test_version(run) -> None:
    assert run("--version").out.strip() == __version__


@pytest.mark.parametrize(
    "arguments",
    [
        ("compose",),
        ("generate", "x", "--tempo", "90"),
        ("generate", "x", "--seconds", "long"),
        ("generate", "x", "--device", "tpu"),
        ("generate", "x", "--count", "0"),
        ("reconstruct",),
        ("reconstruct", "x.wav", "-o", "y.wav", "--through", "lm"),
        ("continue",),
    ],
)
def test_wrong_usage_is_code_2(run, arguments) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Error" in outcome.err


def test_an_interrupt_is_code_130(run, monkeypatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("longplay.checkpoint.manage.list_models", interrupted)
    assert run("models", "list").code == 130


def test_every_option_of_a_request_is_used() -> None:
    fields = {*GenerationOptions.model_fields, *Finish.model_fields, *Request.__dataclass_fields__}
    assert set(RequestOptions.__annotations__) - fields == {"sections", "bpm", "key", "chords", "from_"}, (
        "of the prompt, and the recipe"
    )
