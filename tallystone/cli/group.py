"""How every command group is made: same help, same examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cyclopts import App


def group(name: str, summary: str) -> App:
    """An empty command group."""
    return App(name, help=summary, version_flags=(), help_format="plaintext")


def examples(*lines: str) -> str:
    """Examples as they stand at the end of a command's help."""
    return "Examples:\n" + "\n".join(f"  {line}" for line in lines)


def command(app: App, name: str, *lines: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as `name` in `app`, with its examples."""
    return app.command(name=name, help_epilogue=examples(*lines), version_flags=())
