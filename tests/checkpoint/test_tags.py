from pathlib import Path

import pytest

from longplay.checkpoint.tags import ARGUMENTS, CLASS, read_tagged_yaml
from longplay.errors import CheckpointError


def read(tmp_path: Path, text: str) -> dict[str, object]:
    path = tmp_path / "inspiremusic.yaml"
    path.write_text(text, encoding="utf-8")
    return read_tagged_yaml(path)


def test_tags_become_data(tmp_path: Path) -> None:
    data = read(
        tmp_path,
        """
seed: !apply:random.seed [1024]
dim: 64
llm: !new:inspiremusic.llm.llm.LLM
    size: !ref <dim>
    sampling: !name:some.module.topk
        top_k: 350
    empty: !new:a.b.Empty
pipeline: [!ref <llm>, !ref <dim>]
""",
    )
    llm = {CLASS: "LLM", "size": 64, "sampling": {CLASS: "topk", "top_k": 350}, "empty": {CLASS: "Empty"}}
    assert data == {"seed": {CLASS: "seed", ARGUMENTS: [1024]}, "dim": 64, "llm": llm, "pipeline": [llm, 64]}


def test_nothing_is_executed(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    read(tmp_path, f"a: !apply:os.mkdir ['{trap.as_posix()}']\nb: !new:os.mkdir {{path: '{trap.as_posix()}'}}\n")
    assert not trap.exists()


def test_python_tags_are_refused(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    with pytest.raises(CheckpointError, match="not valid YAML"):
        read(tmp_path, f"a: !!python/object/apply:os.mkdir ['{trap.as_posix()}']\n")
    assert not trap.exists()


def test_references_follow_each_other_and_paths(tmp_path: Path) -> None:
    data = read(tmp_path, "a: !ref <b>\nb: !ref <c[d]>\nc: {d: 3}\n")
    assert data["a"] == 3


def test_what_is_not_understood_stays_text(tmp_path: Path) -> None:
    data = read(tmp_path, "a: !ref <b> // 2\nb: 4\nc: !ref <nothing>\n")
    assert data == {"a": "<b> // 2", "b": 4, "c": "<nothing>"}


def test_a_circle_of_references_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="refer to itself"):
        read(tmp_path, "a: !ref <b>\nb: !ref <a>\n")


@pytest.mark.parametrize(
    ("text", "message"), [("a: [1", "not valid YAML"), ("- 1\n", "expected a mapping"), ("", "holds NoneType")]
)
def test_files_that_are_not_a_config(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing\.yaml"):
        read_tagged_yaml(tmp_path / "nothing.yaml")
