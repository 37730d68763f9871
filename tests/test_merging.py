"""Pages out of many streams: the same as of one sorted list, and at the price of what they return."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tallystone.errors import Rejected
from tallystone.vault import Vault, Workspace, streams
from tallystone.vault.merging import Source, merged_page, page_of

RANDOM = random.Random(19)


def source(label: str, dates: list[int]) -> Source:
    entries = {number: {"date": date, "id": f"{label}{number}"} for number, date in enumerate(dates, 1)}

    def walk(beyond: int | None, newest_first: bool) -> Iterator[tuple[int, Any]]:
        for number in sorted(entries, reverse=newest_first):
            if beyond is None or (number < beyond if newest_first else number > beyond):
                yield number, entries[number]

    return Source((label,), len(dates), walk, entries.get, "date")


def anything(entry: Any) -> bool:
    return True


def odd_only(entry: Any) -> bool:
    return bool(int(entry["id"][1:]) % 2)


def test_a_page_of_many_streams_is_that_of_one_sorted_list() -> None:
    for _ in range(60):
        sources = [
            source(label, sorted(RANDOM.choices(range(12), k=RANDOM.randrange(9)))) for label in "abcd"
        ]
        whole = sorted(
            (one.place(number, entry), entry["id"])
            for one in sources
            for number, entry in one.walk(None, False)
        )
        odd = RANDOM.random() < 0.5
        passing = [(place, name) for place, name in whole if not odd or int(name[1:]) % 2]
        for after in [None, *(place for place, _ in whole)]:
            before = RANDOM.choice([None, *(place for place, _ in whole)])
            reverse, limit = RANDOM.random() < 0.5, RANDOM.choice([None, 1, 2, 5])

            def entries(beyond: Any, newest_first: bool, passing: Any = passing) -> Iterator[tuple[Any, Any]]:
                for place, name in passing[::-1] if newest_first else passing:
                    if beyond is None or (place < beyond if newest_first else place > beyond):
                        yield place, name

            wanted: dict[str, Any] = {"after": after, "before": before, "limit": limit, "reverse": reverse}
            found = merged_page(sources, odd_only if odd else anything, **wanted)
            assert [entry["id"] for _, entry in found] == page_of(entries, **wanted)


def new_id(kind: str) -> str:
    return f"{kind}-{UUID(int=RANDOM.getrandbits(128), version=4)}"


def talk(vault: Vault, agent: str, turns: int) -> None:
    """Turns of fifty messages and five steps each."""
    for number in range(turns):
        run = new_id("run")
        turn = vault.begin_turn(agent, "default", {"id": run, "handle": "x"}, lambda *_: ([], {}))
        said = [
            {"id": new_id("message"), "role": "user", "date": number * 100 + one, "text": "word"}
            for one in range(50)
        ]
        turn.write(said)
        for one in range(5):
            turn.write(step={"id": new_id("step"), "run": run, "agent": agent, "created": 9 - one})
        turn.write(run={"status": "completed", "stop_reason": "end_turn", "completed": 1}, end=True)


def test_a_page_opens_no_more_than_it_returns_and_one_of_each_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, you = Workspace.init(tmp_path / "data")
    with workspace:
        vault = workspace.vault(you.token)
        first, second = (vault.create_agent({"name": name}).id for name in "ab")
        for agent in (first, second):
            talk(vault, agent, 6)
        middle = vault.search_messages(anything, limit=150)[-1][2]["id"]
        run = vault.runs(None, anything)[6]["id"]
        opened = 0
        really = streams._open

        def counting(*given: Any) -> Any:
            nonlocal opened
            opened += 1
            return really(*given)

        monkeypatch.setattr(streams, "_open", counting)

        def cost(work: Any) -> int:
            nonlocal opened
            opened = 0
            assert len(work()) == 4
            return opened

        # of one stream: the page, and the conversation's record
        assert cost(lambda: vault.messages(first, limit=4, reverse=True)) <= 4 + 1
        assert cost(lambda: vault.search_messages(anything, limit=4, agent_id=first)) <= 4 + 1
        assert cost(lambda: vault.search_messages(anything, limit=4)) <= 4 + 2
        # a record of a run or a step is named by one entry and held by another
        assert cost(lambda: vault.runs(first, anything, limit=4, reverse=True)) <= 2 * (4 + 1)
        assert cost(lambda: vault.steps(None, anything, limit=4, reverse=True)) <= 2 * (4 + 2)
        # deep in the list: what halving 300 messages, or 6 runs, opens besides
        assert cost(lambda: vault.search_messages(anything, limit=4, after=middle)) <= 4 + 2 + 2 + 9
        assert cost(lambda: vault.runs(None, anything, limit=4, after=run)) <= 2 * (4 + 2 + 3) + 1


def test_pages_of_runs_and_steps(tmp_path: Path) -> None:
    """Each item once, also where a clock was set back: the steps of an agent's second run are dated before its first's
    end."""
    workspace, you = Workspace.init(tmp_path / "data")
    with workspace:
        vault = workspace.vault(you.token)
        agents = [vault.create_agent({"name": name}).id for name in "abc"]
        for agent in (*agents, *agents[:2]):
            talk(vault, agent, 1)
        for read in (vault.runs, vault.steps):
            whole = [one["id"] for one in read(None, anything)]
            assert len(set(whole)) == len(whole)
            for reverse in (False, True):
                walked: list[str] = []
                while True:
                    after = walked[-1] if walked else None
                    page = read(None, anything, after=after, limit=2, reverse=reverse)
                    if not page:
                        break
                    walked += [one["id"] for one in page]
                assert walked == (whole[::-1] if reverse else whole)
            assert [one["id"] for one in read(None, anything, before=whole[4], limit=2)] == whole[2:4]
            with pytest.raises(Rejected):
                read(None, anything, after="run-of-nobody")
            with pytest.raises(Rejected):
                read(agents[2], anything, after=read(agents[0], anything)[0]["id"])
        run = vault.runs(agents[2], anything)[0]
        assert [one["id"] for one in vault.run_steps(run["id"])] == run["steps"]
