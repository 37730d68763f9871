"""The operations: what a principal can do, and the workspace it happens in."""

from tallystone.vault.vault import Vault
from tallystone.vault.workspace import Workspace

__all__ = ["Vault", "Workspace"]
