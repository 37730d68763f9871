"""`python -m bench SUITE …`: the front of all that is measured here.

| suite    | what it measures                                                                              |
| dropin   | any letta-compatible server: requests a second and milliseconds of what its clients call       |
| workers  | one worker and two, in turns, against what the processor time of both allows                  |
| overhead | ours against a plaintext twin, in turns: what keys, signatures and the log cost                |
| growth   | retrieve, list, update, share and revoke with 1,000 to 1,000,000 blocks                        |
| sharing  | sharing and revoking, against the number of those who hold a grant                             |
| feed     | how soon listeners hear of a change                                                            |
| audit    | what the log costs those who read                                                              |
| log      | proofs and checks in a log of millions of leaves                                               |
| profile  | what an operation costs and where: statements, signatures, processor time by part              |
| soak     | clients at work while workers, database sessions and the primary are killed: nothing is lost    |
| report   | the tables of docs/benchmarks.md, from the results beside it                                   |

Each has options of its own: `python -m bench SUITE --help`.
"""

from __future__ import annotations

import importlib
import sys

SUITES = (
    "dropin",
    "workers",
    "overhead",
    "growth",
    "sharing",
    "feed",
    "audit",
    "log",
    "profile",
    "soak",
    "report",
)


def main(arguments: list[str]) -> int:
    """Run a suite; what it returns is the exit status."""
    if not arguments or arguments[0] not in SUITES:
        print(__doc__, file=sys.stderr if arguments else sys.stdout)
        return 2 if arguments else 0
    suite = importlib.import_module(f"bench.{arguments[0]}")
    return suite.main(arguments[1:]) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
