from pathlib import Path
from typing import Any

import pytest

from longplay.data.recordings import Given, Recording, splits


def recordings(count: int, **given: Any) -> list[Recording]:
    return [
        Recording(id=f"r{n}", path=Path(f"/x/{n}.wav"), source=f"album{n // 5}/{n}.wav", given=Given(**given))
        for n in range(count)
    ]


def test_shares_are_kept_and_folders_stay_together() -> None:
    every = recordings(2000)
    found = splits(every, "album", valid=0.1, test=0.2)
    for split, share in (("valid", 0.1), ("test", 0.2)):
        assert list(found.values()).count(split) / 2000 == pytest.approx(share, abs=0.05)
    for start in range(0, 2000, 5):
        assert len({found[f"r{n}"] for n in range(start, start + 5)}) == 1
    assert splits(every[500:], "album", 0.1, 0.2).items() <= found.items()  # whatever else is there


def test_albums_of_the_tags_and_given_groups_and_splits_win() -> None:
    every = recordings(50, author="Ada", album="One")
    every += [each.model_copy(update={"id": f"s{each.id}", "given": Given(group="g")}) for each in recordings(50)]
    every.append(Recording(id="t", path=Path("/t.wav"), source="t.wav", given=Given(split="test")))
    found = splits(every, "album", valid=0.5, test=0)
    assert len({found[f"r{n}"] for n in range(50)}) == 1
    assert len({found[f"sr{n}"] for n in range(50)}) == 1
    assert found["t"] == "test"


def test_a_few_files_still_have_every_split() -> None:
    few = [Recording(id=str(n), path=Path(f"/{n}.wav"), source=f"{n}.wav", given=Given()) for n in range(4)]
    assert {"train", "valid", "test"} == set(splits(few, "album", 0.01, 0.01).values())
    assert set(splits(few, "album", 0, 0).values()) == {"train"}
    assert set(splits(few[:1], "album", 0.05, 0.05).values()) == {"train"}


def test_one_album_alone_is_split_by_file(caplog: pytest.LogCaptureFixture) -> None:
    found = splits(recordings(30, author="Ada", album="One"), "album", 0.1, 0.1)
    assert {"train", "valid", "test"} == set(found.values())
    assert "one group" in caplog.text
