"""How a new root is told: what ended, what has new keys, and what is left to others."""

from __future__ import annotations

from dataclasses import asdict

from tallystone.cli.place import Place
from tallystone.cli.terminal import emit, line, say, warn
from tallystone.vault.rotated import Rotated


def hear(place: Place, token: str) -> None:
    """The token that replaces the caller's own: on stdout at once, since nothing else gets in from now on."""
    if not place.as_json:
        line(token)
        say("This replaces the token you came with. Keep it safe: it is shown once.", style="dim")


def tell(place: Place, done: Rotated) -> None:
    """The answer as JSON, or in sentences on stderr."""
    if place.as_json:
        emit(asdict(done))
        return
    say(f"{done.principal} has a new root; {done.renewed} blocks and roles have new keys")
    for token in done.ended:
        say(f"ended: {token.kid}  {token.principal}  {token.scope}  {token.label}".rstrip())
    if not done.ended:
        say("no other token had to end")
    for block in done.marked:
        say(f"{block} has new keys before it is next written; then those of the old root open nothing new")
    for role in done.roles:
        warn(
            f"{role} is somebody else's: ask its owner to look at it (tallystone role show), which renews it"
        )
