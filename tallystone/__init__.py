"""Tallystone: shared memory for AI agents in which permission is a key, not a check.

    import tallystone

    with tallystone.open("./data", token=token) as vault:
        block = vault.create_block(label="team_knowledge", value="Refunds take 30 days.")
        vault.share(block.id, with_="bob", can="read")

`open` gives a `Vault` in this process, on an embedded store; `aopen` an asynchronous one. Neither needs a server.
"""

from __future__ import annotations

from tallystone._embedded import AsyncVault, OpenVault, aopen, open
from tallystone.errors import TallystoneError
from tallystone.vault import Vault, Workspace

__version__ = "0.1.0"
__all__ = ["AsyncVault", "OpenVault", "TallystoneError", "Vault", "Workspace", "__version__", "aopen", "open"]
