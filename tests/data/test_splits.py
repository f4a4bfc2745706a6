import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from longplay.data.recordings import Given, Recording
from longplay.data.splits import hashed_splits, splits

SHARES = (0.05, 0.05)


def recordings(count: int, each_album: int = 5, **given: Any) -> list[Recording]:
    return [
        Recording(id=f"r{n}", path=Path(f"/x/{n}.wav"), source=f"album{n // each_album}/{n}.wav", given=Given(**given))
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


def test_a_few_files_still_have_every_split(caplog: pytest.LogCaptureFixture) -> None:
    few = [Recording(id=str(n), path=Path(f"/{n}.wav"), source=f"{n}.wav", given=Given()) for n in range(4)]
    assert {"train", "valid", "test"} == set(splits(few, "album", 0.01, 0.01).values())
    assert set(splits(few, "album", 0, 0).values()) == {"train"}
    assert not caplog.text


def test_a_split_that_stays_empty_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert splits(recordings(1), "album", *SHARES) == {"r0": "train"}
    assert [record.getMessage() for record in caplog.records] == [
        f"split {split!r} is empty: 1 recordings are too few, or given other splits; add some"
        for split in ("valid", "test")
    ]
    caplog.clear()
    assert splits(recordings(1, split="valid"), "album", 0.05, 0) == {"r0": "valid"}
    assert "split 'train' is empty" in caplog.text


@pytest.mark.parametrize("albums", [1, 2, 3, 5])
def test_albums_that_are_too_large_are_split_by_file(albums: int, caplog: pytest.LogCaptureFixture) -> None:
    every = recordings(30, 30 // albums)
    count = Counter(splits(every, "album", *SHARES).values())
    assert 1 <= count["valid"] <= 4
    assert 1 <= count["test"] <= 4
    assert (
        f"30 recordings are {albums} groups (by album), none of them small enough for split valid and test"
        in caplog.text
    )


def test_albums_that_are_small_enough_stay_whole(caplog: pytest.LogCaptureFixture) -> None:
    for names in range(50):  # whatever the hash says of them
        every = [
            Recording(id=str(n), path=Path(f"/{n}"), source=f"{names}-{n // 3}/{n}", given=Given()) for n in range(30)
        ]
        found = splits(every, "album", *SHARES)
        assert Counter(found.values()) == {"valid": 3, "test": 3, "train": 24}
        assert all(len({found[str(n)] for n in range(start, start + 3)}) == 1 for start in range(0, 30, 3))
    assert not caplog.text


def test_an_album_that_is_too_large_is_trained_on_where_there_are_others() -> None:
    singles = [Recording(id=str(n), path=Path(f"/{n}"), source=f"{n}/{n}", given=Given()) for n in range(4)]
    count = Counter(splits([*recordings(26, 26), *singles], "album", *SHARES).values())
    assert set(count) == {"train", "valid", "test"}
    assert count["train"] >= 26


@pytest.mark.parametrize("shares", [(0.05, 0.05), (0.4, 0.4), (0.9, 0.0)])
def test_training_is_never_left_without(shares: tuple[float, float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    for count in (1, 2, 3, 7, 40):
        for names in range(100):
            found = hashed_splits({f"{names}-{n}": 1 for n in range(count)}, *shares)
            trained = list(found.values()).count("train")
            assert trained >= max(1, (1 - sum(shares)) / 2 * count - 2)


def test_what_is_given_counts() -> None:
    every = [
        *recordings(3, 1, split="valid"),
        *(each.model_copy(update={"id": f"s{each.id}"}) for each in recordings(20, 1)),
    ]
    found = splits(every, "file", 0.05, 0)
    assert Counter(found.values()) == {"valid": 3, "train": 20}
