"""The page of the soak says what its result says, and what is not as promised is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import soak_page
from bench.acknowledged import Client, Ledger

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_table_in_the_docs_is_that_of_the_result() -> None:
    written = (DOCS / soak_page.PAGE).read_text(encoding="utf-8")
    assert soak_page.page(DOCS) == written, "run: python -m bench soak --report docs"


def test_memory_is_compared_around_the_first_minute_and_the_last() -> None:
    looks: list[dict[str, Any]] = [{"second": at, "pss_mb": 100 + at / 10} for at in range(5, 605, 5)]
    assert soak_page.growth({"minutes": 10, "memory": looks}, "pss_mb") == (106.0, 159.25)
    assert soak_page.growth({"minutes": 10, "memory": []}, "pss_mb") is None


def test_a_worker_that_was_killed_meanwhile_is_told_apart_from_the_one_that_was_not() -> None:
    looks = [
        {
            "second": at,
            "pss_mb": 100,
            "spared_pss_mb": 40 + at / 60,
            "spared_own_mb": 30 + at / 60,
            "others": [{"age_s": float(at % 40), "pss_mb": 25.0}],
        }
        for at in range(5, 125, 5)
    ]
    assert soak_page._curve({"minutes": 2, "memory": looks})[2:4] == [
        "| 1 | 100 | 41 | 31 | 25 (35 s) |",
        "| 2 | 100 | 42 | 32 | 25 (0 s) |",
    ]
    assert soak_page._curve({"minutes": 2, "memory": [{"second": 60, "pss_mb": 1}]}) == []


def test_the_checker_finds_what_was_lost_and_what_is_there_twice() -> None:
    ledger = Ledger()
    client = Client("http://127.0.0.1:9", "token", 0, ledger, "shared", seed=1)
    client.lines = {"0-0": True, "0-1": True, "0-2": False, "0-3": False}
    client.made = {"kept": "block-1", "lost": "block-2", "unknown": None, "twice": None, "gone": "block-3"}
    client.deleted = {"gone": True}
    there = {"kept": ["block-1"], "twice": ["block-4", "block-5"], "gone": ["block-3"]}
    client.check_lines({"0-0": 1, "0-2": 2})
    client.check_made(there)
    told = "\n".join(ledger.wrong)
    for name in ("line 0-1 is there 0", "line 0-2 is there 2", "'lost'", "'twice'", "'gone'"):
        assert name in told
    assert len(ledger.wrong) == 5
