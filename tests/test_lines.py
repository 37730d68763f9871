"""Texts as lines: differences, merges and origins, against what they must mean for any text."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystone.vault import lines
from tallystone.vault.lines import Clash, carried, hunks, join, split, take_back, unified

texts = st.lists(st.sampled_from(["", "a", "b", "c", "d", "- x", "- y"]), max_size=12)


@given(st.text())
def test_splitting_loses_nothing(text: str) -> None:
    assert join(split(text)) == text


@pytest.mark.parametrize("small", [0, lines.SMALL])
@given(first=texts, second=texts)
def test_the_hunks_make_the_second_text_of_the_first(small: int, first: list[str], second: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lines, "SMALL", small)
        _check_hunks(first, second)


def _check_hunks(first: list[str], second: list[str]) -> None:
    made: list[str] = []
    place = 0
    for one in hunks(first, second):
        made += first[place : one.start]
        assert len(made) == one.at
        made += one.lines
        place = one.end
    assert made + first[place:] == second


def test_large_texts_are_matched_line_by_line_too() -> None:
    before = [f"line {number}" for number in range(20_000)]
    after = ["new", *before[:9_000], "changed", *before[9_001:], "end"]
    assert [(one.start, one.end, one.lines) for one in hunks(before, after)] == [
        (0, 0, ("new",)), (9_000, 9_001, ("changed",)), (20_000, 20_000, ("end",))
    ]  # fmt: skip


@given(texts, texts)
def test_taking_back_the_last_change_gives_what_was_before(before: list[str], after: list[str]) -> None:
    merged = take_back(before, after, after)
    assert merged.lines == before
    assert merged.clashes == []


@given(texts, texts)
def test_taking_back_twice_is_taking_back_once(before: list[str], after: list[str]) -> None:
    assert take_back(before, after, before).lines == before


@given(texts, texts, texts)
def test_whatever_stays_stood_where_it_says(before: list[str], after: list[str], now: list[str]) -> None:
    merged = take_back(before, after, now)
    assert len(merged.lines) == len(merged.places)
    for line, place in zip(merged.lines, merged.places, strict=True):
        assert place is None or now[place] == line
    stood = [place for place in merged.places if place is not None]
    assert stood == sorted(set(stood))
    for clash in merged.clashes:
        assert 0 <= clash.start <= clash.end <= len(now)


def test_a_clash_that_ends_among_lines_that_are_gone_ends_where_they_were() -> None:
    merged = take_back([""], ["b", "a", "", ""], ["", "a"])
    assert merged.lines == ["", "a"]
    assert merged.clashes == [Clash(0, 2, ())]


@given(texts, st.lists(st.uuids().map(str), max_size=4), st.lists(st.uuids().map(str), max_size=4))
def test_appends_of_others_stay_when_an_append_is_taken_back(
    before: list[str], bad: list[str], good: list[str]
) -> None:
    merged = take_back(before, before + bad, before + bad + good)
    assert merged.lines == before + good
    assert merged.clashes == []


def test_a_line_that_somebody_wrote_over_stays_and_is_told() -> None:
    merged = take_back(["a", "b", "c"], ["a", "B", "c", "x"], ["a", "B!", "c", "x"])
    assert merged.lines == ["a", "B!", "c"]
    assert merged.clashes == [Clash(1, 2, ("b",))]


def test_two_lines_put_at_one_place_exclude_each_other_but_not_at_the_end() -> None:
    inside = take_back(["a", "gone", "z"], ["a", "z"], ["a", "other", "z"])
    assert (inside.lines, inside.clashes) == (["a", "other", "z"], [Clash(1, 2, ("gone",))])
    at_the_end = take_back(["a", "gone"], ["a"], ["a", "other"])
    assert (at_the_end.lines, at_the_end.clashes) == (["a", "gone", "other"], [])


def test_what_somebody_removed_already_is_no_conflict() -> None:
    merged = take_back(["a", "z"], ["a", "p", "q", "z"], ["p", "z"])
    assert (merged.lines, merged.clashes) == (["z"], [])


@given(texts, texts)
def test_a_carried_line_is_the_same_line_and_comes_from_one_place(
    before: list[str], after: list[str]
) -> None:
    found = carried(before, after)
    assert all(after[place] == before[origin] for place, origin in found.items())
    assert len(set(found.values())) == len(found)


def test_a_moved_line_keeps_its_origin() -> None:
    assert carried(["first", "second", "third"], ["third", "first", "second", "new"]) == {0: 2, 1: 0, 2: 1}


def test_a_blank_line_does_not_move() -> None:
    assert carried(["a", "", "b", "c"], ["a", "b", "c", ""]) == {0: 0, 1: 2, 2: 3}


@pytest.mark.parametrize("seed", range(20))
def test_a_unified_diff_is_one_that_patch_applies(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    before = [rng.choice("abcdef") * 3 for _ in range(30)]
    after = [line for line in before if rng.random() > 0.15]
    for _ in range(3):
        after.insert(rng.randrange(len(after) + 1), rng.choice("xyz"))
    file = tmp_path / "text"
    file.write_text(join(before) + "\n")
    patch = "--- text\n+++ text\n" + "".join(line + "\n" for line in unified(join(before), join(after)))
    done = subprocess.run(
        ["git", "apply", "--unsafe-paths", "-"], cwd=tmp_path, input=patch, text=True, check=False
    )
    assert done.returncode == 0
    assert file.read_text() == join(after) + "\n"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["x", "q"] * 500, ["q", "y", "x"] * 333 + ["z"]),
        ([""] * 100_000 + ["a"], ["b"] + [""] * 99_000 + ["c"]),
        ([str(n % 7) for n in range(50_000)], [str(n % 5) for n in range(50_000)]),
        ([str(n) for n in range(3_900)], [str(n * 7 % 3_901) for n in range(3_900)]),
    ],
)
def test_no_text_keeps_a_reader_busy_for_long(first: list[str], second: list[str]) -> None:
    began = process_time()
    lines.hunks(first, second)
    assert process_time() - began < 10
