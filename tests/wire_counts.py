"""The counts of `test_wire.py`, gathered from its reports, so that they are printed with several workers as well."""

from __future__ import annotations

from collections import Counter
from typing import Any

PROPERTY = "recorded client call"


def summarise(terminalreporter: Any) -> None:
    """Write one line with the outcomes of all recorded calls that ran. For `pytest_terminal_summary`."""
    outcomes = Counter(
        str(value)
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == PROPERTY and report.when == "call"
    )
    if outcomes:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        terminalreporter.write_line(f"recorded client calls: {outcomes.total()} ({counts})")
