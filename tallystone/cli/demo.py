"""`tallystone demo` and `tallystone doctor`: how they look."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from tallystone.cli.access import matrix
from tallystone.cli.place import AsJson, Place, offered_token, store_url
from tallystone.cli.terminal import drawn, emit, plain, say, stdout
from tallystone.tooling import demo as tooling_demo
from tallystone.tooling.doctor import Check, examine
from tallystone.vault.types import Access

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "bold red")}


class Screen:
    """The demo as lines for people; nothing is printed when `quiet`. All steps are kept for JSON."""

    def __init__(self, *, quiet: bool) -> None:
        self.steps: list[dict[str, object]] = []
        self._quiet = quiet
        self._part = ""

    def part(self, title: str) -> None:
        """A new part begins."""
        self._part = title
        if not self._quiet:
            stdout().print(Text(f"\n{title}", style="bold"))

    def did(self, what: str, detail: str = "") -> None:
        """A step that went as promised."""
        self.steps.append({"part": self._part, "did": what, "detail": detail})
        if not self._quiet:
            stdout().print(_line("ok", what, detail))

    def matrix(self, cells: Sequence[Access]) -> None:
        """The access matrix."""
        columns, rows = matrix(cells)
        self.steps.append({"part": self._part, "did": "the access matrix", "columns": columns, "rows": rows})
        if not self._quiet:
            printed = [[plain(cell) for cell in row] for row in rows]
            stdout().print(drawn([plain(column) for column in columns], printed))


def _line(verdict: str, what: str, detail: str) -> Text:
    mark, style = _MARKS[verdict]
    if "utf" not in (sys.stdout.encoding or "").lower():
        mark = {"✓": "+", "✗": "x"}.get(mark, mark)
    return Text.assemble((f"  {mark} ", style), plain(what), (f"  {plain(detail)}" if detail else "", "dim"))


def demo(
    *,
    keep: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    as_json: AsJson = False,
) -> int:
    """Show the whole of it: a server, the real letta-client, two agents, one shared block, and the proof.

    Everything happens in a temporary folder and on a free port of this machine, and is removed at the end.

    Parameters
    ----------
    keep
        Keep the temporary folder, and say where it is.
    as_json
        Print JSON.
    """
    began = time.monotonic()
    screen = Screen(quiet=as_json)
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        with tooling_demo.temporary_folder(keep=keep) as folder:
            tooling_demo.play(screen, folder)
    finally:
        signal.signal(signal.SIGTERM, before)
    took = time.monotonic() - began
    if as_json:
        emit(
            {
                "ok": True,
                "seconds": round(took, 1),
                "folder": str(folder) if keep else None,
                "steps": screen.steps,
            }
        )
        return 0
    left = f"kept: {folder}" if keep else "nothing is left behind"
    stdout().print(Text(f"\nAll as promised, in {took:.1f} s; {left}.", style="bold green"))
    return 0


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def doctor(*, place: Place = Place()) -> int:
    """Check this machine, and the data directory or server if one is named. Needs no token.

    With a token it also checks that the token opens something.
    """
    data, url = place.named()
    token = offered_token(place.token_file)
    checks: list[Check] = []
    for check in examine(data, url, token, store_url()):
        checks.append(check)
        if not place.as_json:
            stdout().print(_line(check.verdict, check.name, check.detail))
            if check.hint:
                stdout().print(Text(f"      hint: {plain(check.hint)}", style="cyan"))
    sound = all(check.verdict != "problem" for check in checks)
    if place.as_json:
        emit({"ok": sound, "checks": checks})
    elif sound:
        say("nothing wrong was found", style="bold green")
    return 0 if sound else 1
