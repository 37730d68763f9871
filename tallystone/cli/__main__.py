"""`python -m tallystone.cli`: the same as the `tallystone` script, for where no script is on the path."""

from __future__ import annotations

import sys

from tallystone.cli import main

sys.exit(main())
