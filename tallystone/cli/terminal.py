"""What goes to the terminal, and how: results on stdout, everything meant for people on stderr.

A label or a name may come from somebody else, so every text passes `plain` before it reaches a terminal: control
characters are shown, never obeyed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Cc controls, Cf format (bidirectional overrides), Cs lone surrogates, Zl/Zp line separators.
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def stdout() -> Console:
    """A console on the current stdout. No markup, so that brackets in a value stay what they are."""
    return Console(file=sys.stdout, markup=False, highlight=False, soft_wrap=True)


def stderr() -> Console:
    """A console on the current stderr, for people."""
    return Console(file=sys.stderr, markup=False, highlight=False, soft_wrap=True)


def plain(text: object, *, keep: str = "") -> str:
    """`text` with every character that a terminal could obey written out as an escape, save those in `keep`."""
    return "".join(
        char if char in keep or unicodedata.category(char) not in _UNSAFE else _escape(char)
        for char in str(text)
    )


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def say(text: str, *, style: str = "") -> None:
    """One line for people, on stderr."""
    stderr().print(Text(plain(text), style=style))


def warn(text: str) -> None:
    """A line that should not be overlooked, on stderr."""
    stderr().print(Text.assemble(("warning: ", "yellow"), plain(text)))


def fail(message: str, hint: str = "") -> None:
    """`error: …` and `hint: …` on stderr, one line each."""
    console = stderr()
    console.print(Text.assemble(("error: ", "bold red"), plain(message)))
    if hint:
        console.print(Text.assemble(("hint: ", "cyan"), plain(hint)))


def line(text: str) -> None:
    """One line of result on stdout, as it is: a key for a script to take."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def body(text: str) -> None:
    """A block's value on stdout. At a terminal its control characters are shown, in a pipe they are kept."""
    if sys.stdout.isatty():
        text = plain(text, keep="\n\t")
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def document(content: bytes) -> None:
    """A signed text on stdout, byte for byte, whatever the terminal's encoding."""
    sys.stdout.flush()
    raw = getattr(sys.stdout, "buffer", None)
    if raw is None or sys.stdout.isatty():
        sys.stdout.write(content.decode(errors="replace"))
    else:
        raw.write(content)
    sys.stdout.flush()


def emit(value: object) -> None:
    """`value` as JSON on stdout."""
    line(json.dumps(jsonable(value), ensure_ascii=not _utf8(), indent=2))


def report(value: object, text: str, *, as_json: bool) -> int:
    """What a command has done: the value as JSON, or a line to whoever reads. Returns the exit status."""
    if as_json:
        emit(value)
    else:
        say(text)
    return 0


def _utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def jsonable(value: object) -> Any:
    """Plain JSON values for our dataclasses, times (ISO 8601, UTC), days, mappings and sequences; bytes as hex."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    return value


def moment(value: datetime | int | float | None) -> str:
    """A time (or Unix seconds) as `2026-01-31T12:00:00Z`; nothing as an empty text."""
    if value is None:
        return ""
    if isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC)
    return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "nothing here") -> None:
    """Rows on stdout: a drawn table at a terminal, tab-separated lines with a heading in a pipe."""
    cells = [[plain("" if cell is None else cell) for cell in row] for row in rows]
    if not cells:
        say(empty, style="dim")
        return
    if not sys.stdout.isatty():
        for row in [list(columns), *cells]:
            line("\t".join(row))
        return
    stdout().print(drawn(columns, cells))


def drawn(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table to be printed by a rich console. Wider than the terminal it runs on: a broken id cannot be copied."""
    rows = list(rows)
    gaps = 3 * len(columns)
    width = gaps + sum(
        max(map(cell_len, (name, *cells))) for name, *cells in zip(columns, *rows, strict=True)
    )
    drawn_table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", width=width)
    for name in columns:
        drawn_table.add_column(name, no_wrap=True)
    for row in rows:
        drawn_table.add_row(*(Text(cell, style=_CELLS.get(cell, "")) for cell in row))
    return drawn_table


_LETTERS = {"R": "cyan", "RS": "cyan", "RW": "green", "RWS": "green"}
_CELLS = {
    "owner": "bold green",
    "write": "green",
    "read": "cyan",
    "suspended": "red",
    "-": "dim",
    **_LETTERS,
    **{
        f"{own}({more})": f"italic {style}"
        for own in ("", "R ", "RS ", "RW ")
        for more, style in _LETTERS.items()
    },
}
"""How a cell looks that says exactly this."""


def pairs(values: Mapping[str, object]) -> None:
    """Names and values of one thing on stdout, one a line."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        line(f"{name:<{width}}  {plain('' if value is None else value)}")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr while the body runs, fed by `step(done, total)`. Nothing is drawn unless a person watches."""
    console = stderr()
    if not console.is_terminal:
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def confirm(question: str) -> bool:
    """Ask on the terminal; whoever is not at one has not agreed."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"{plain(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def watched() -> bool:
    """Whether a person watches: input, output and messages are all a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()


def abandon() -> None:
    """After a broken pipe: let the interpreter's last flush go nowhere instead of raising again."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
