from collections import defaultdict

import pytest

from longplay.data.sources import (
    NOT_MUSIC,
    QUICK_PACKAGES,
    TEST_PACKAGES,
    TRAIN_LICENCES,
    SourceFile,
    source_files,
    works,
)


@pytest.fixture(scope="module")
def listed() -> list[SourceFile]:
    return source_files()


def file(path: str, licence: str = "PERM", package: str = "p", **values: object) -> SourceFile:
    return SourceFile.parse(
        {"package": package, "path": path, "seconds": 60.0, "sample_rate": 44100, "kbps": 128, "licence": licence}
        | values
    )


def test_reserved_music_is_never_trained_on(listed: list[SourceFile]) -> None:
    """Every tenth file of a package, counted over all its files or over the trainable ones, and two whole packages."""
    trained = {(f.package, f.path) for work in works(listed) if work.split != "test" for f in work.files}
    by_package = defaultdict(list)
    for each in sorted(listed, key=lambda each: each.path):
        by_package[each.package].append(each)
    for package, members in by_package.items():
        trainable = [each for each in members if each.licence in TRAIN_LICENCES]
        for order in (members, trainable):
            assert not trained & {(package, each.path) for each in order[9::10]}
    assert not any(package in TEST_PACKAGES for package, _ in trained)


def test_only_licences_that_allow_it_are_used(listed: list[SourceFile]) -> None:
    assert {f.licence for work in works(listed) for f in work.files} == set(TRAIN_LICENCES)


def test_splits_of_the_whole_list(listed: list[SourceFile]) -> None:
    found = works(listed)
    seconds = {s: sum(work.files[0].seconds for work in found if work.split == s) for s in ("train", "valid", "test")}
    assert len({work.id for work in found}) == len(found)
    assert seconds["train"] > 14 * 3600
    assert 0.01 < seconds["valid"] / seconds["train"] < 0.05
    assert seconds["test"] > 2 * 3600
    assert not any(part in f.path for work in found for f in work.files for part in NOT_MUSIC)


def test_a_choice_of_packages_does_not_move_splits(listed: list[SourceFile]) -> None:
    everything = {work.id: work.split for work in works(listed)}
    quick = works(listed, QUICK_PACKAGES)
    assert quick
    assert {work.package for work in quick} == set(QUICK_PACKAGES)
    assert {work.split for work in quick} == {"train", "valid", "test"}, "stages need each"
    assert all(everything[work.id] == work.split for work in quick)


def test_stems_are_one_work() -> None:
    stems = [file("songs/one/guitar.ogg", tags={"title": "One"}), file("songs/one/song.ogg")]
    (work,) = works([*stems, file("songs/two/drums.ogg", licence="GPL")])
    assert len(work.files) == 2
    assert work.source == "p/songs/one"
    assert work.tags == {"title": "One"}


@pytest.mark.parametrize(
    ("rate", "kbps", "good"), [(44100, 100, True), (48000, 48, False), (22050, 128, False), (44100, 99, False)]
)
def test_codec_needs_treble_in_every_file(rate: int, kbps: int, good: bool) -> None:
    stems = [file("a/guitar.ogg"), file("a/song.ogg", sample_rate=rate, kbps=kbps)]
    assert works(stems)[0].codec_ok is good
