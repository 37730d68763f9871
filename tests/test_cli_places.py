"""The command line over `--url` does what it does over `--data`: the transcripts of both users and tokens are played
against a running server as well, and must come out the same."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from stores import sampled, thinned
from test_cli import Names, _sh, _tallystone, plain_terminal  # noqa: F401

from tallystone.cli.remote import RemoteVault
from tallystone.server.run import running
from tallystone.server.settings import Settings
from tallystone.vault import Vault, Workspace

pytestmark = thinned(3, "they differ in how a command finds its server")

PLAYED = ("sharing", "tokens", "roles", "policies", "people", "model-keys")
TRANSCRIPTS = [Path(__file__).parent / "transcripts" / f"{name}.txt" for name in PLAYED]
PLACES = ["--data", "--url"]
LOCAL = {("init",), ("recover",), ("audit", "verify")}
"""Commands that need the directory: they hold the kit, or need no token."""

# The log counts a read more where a change over HTTP looks at the block first.
_COUNTS = re.compile(r"^\d+(?=\t<time>)|\d+ (?:leaves|rows)")


@pytest.fixture
def serve() -> Iterator[Callable[[], str]]:
    """Start a server over the folder `data`; its URL."""
    with ExitStack() as open_ones:

        def start() -> str:
            workspace = open_ones.enter_context(Workspace.open(Path("data")))
            return open_ones.enter_context(running(workspace, Settings(port=0, log_level="error")))

        yield start


@sampled(3, "test_cli.py plays them all on both stores; this is about HTTP")
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_over_http(path: Path, serve: Callable[[], str]) -> None:
    names, seen, over_http, url = Names(), [], 0, ""
    expected = path.read_text(encoding="utf-8").splitlines()
    for line in expected:
        if line.startswith("#"):
            seen.append(line)
        if not line.startswith("$ "):
            continue
        words = shlex.split(names.fill(line[2:]))
        if words[0] != "tallystone":
            status, out, err = _sh(names.fill(line[2:]))
        else:
            if not {tuple(words[1:2]), tuple(words[1:3])} & LOCAL:
                url = url or serve()
                at = words.index("--data")
                words[at : at + 2] = ["--url", url]
                over_http += 1
            status, out, err = _tallystone(words[1:])
        seen.append(line)
        seen += [names.hide(shown).rstrip() for shown in out.splitlines()]
        seen += [f"! {names.hide(shown)}" for shown in err.splitlines()]
        if status:
            seen.append(f"? {status}")
    assert [_COUNTS.sub("N", line) for line in seen] == [_COUNTS.sub("N", line) for line in expected]
    assert over_http > 10


@pytest.fixture(params=PLACES)
def tallystone(request: pytest.FixtureRequest, serve: Callable[[], str]) -> Callable[..., str]:
    """A command that succeeds, as somebody, in a new workspace: what it prints."""
    status, token, _ = _tallystone(["init", "data"])
    assert status == 0
    Path("me.token").write_text(token)
    Path("me.token").chmod(0o600)
    place = ["--data", "data"] if request.param == "--data" else ["--url", serve()]

    def call(*words: str, who: str = "me") -> str:
        status, out, err = _tallystone([*words, *place, "--token-file", f"{who}.token"])
        assert status == 0, err
        return out.strip()

    return call


def save(name: str, token: str) -> None:
    file = Path(f"{name}.token")
    file.write_text(token)
    file.chmod(0o600)


def test_agents_and_their_tokens_in_both_places(tallystone: Callable[..., str]) -> None:
    with Workspace.open(Path("data")) as workspace:
        agent = workspace.vault(Path("me.token").read_text().strip()).create_agent({"name": "ari"}).id
    block = tallystone("block", "create", "notes", "--value", "v")
    shared = json.loads(tallystone("block", "share", block, "--with", agent, "--json"))
    assert (shared["recipient"], shared["can"], shared["kind"]) == (agent, "read", "agent")
    save("agent", tallystone("agent", "token", agent, "--expires", "7d", "--label", "for ari"))
    assert tallystone("block", "show", block, "--value", who="agent") == "v"
    shown = json.loads(tallystone("block", "show", block, "--json"))
    assert [grant["recipient"] for grant in shown["grants"]] == [agent]
    assert f"1      {agent}" in tallystone("block", "show", block).replace("\t", "      ")
    assert json.loads(tallystone("access", "--json"))[1] == {
        "principal": agent,
        "name": "ari",
        "block_id": block,
        "label": "notes",
        "rights": "read",
        "through": "",
    }
    (known,) = [one for one in json.loads(tallystone("token", "list", "--json")) if one["label"]]
    assert (known["principal"], known["label"], known["scope"]) == (agent, "for ari", "full")
    assert known["expires"] > known["created"]
    left = json.loads(tallystone("block", "revoke", block, "--from", agent, "--json"))
    assert [reach["can"] for reach in left["still_reachable"]] == ["owner"]


def test_an_agents_contact_in_both_places(tallystone: Callable[..., str]) -> None:
    with Workspace.open(Path("data")) as workspace:
        vault = workspace.vault(Path("me.token").read_text().strip())
        agent, other = (vault.create_agent({"name": name}).id for name in ("ari", "bea"))
    block = tallystone("agent", "contact", agent)
    again = json.loads(tallystone("agent", "contact", agent, "--with", other, "--json"))
    assert (again["block"], again["label"]) == (block, f"contact/{agent}")
    assert (again["grant"]["recipient"], again["grant"]["can"]) == (other, "read")
    assert agent in tallystone("block", "show", block, "--value")


def test_names_that_are_no_path_in_both_places(tallystone: Callable[..., str]) -> None:
    """A user's name may hold slashes, dots and question marks; it goes through a URL as one segment."""
    name = "../a/b?c#d %2F é"
    made = json.loads(tallystone("user", "add", name, "--json"))
    assert Path(made["kit"]).read_text().count("AGE-SECRET-KEY-PQ-1") == 1
    assert name in tallystone("user", "list")
    block = tallystone("block", "create", "notes")
    tallystone("block", "share", block, "--with", name, "--can", "write")
    assert made["principal"] not in tallystone("block", "revoke", block, "--from", name)


def test_the_log_in_both_places(tallystone: Callable[..., str]) -> None:
    block = tallystone("block", "create", "notes")
    tallystone("block", "delete", block, "--yes")
    events = json.loads(tallystone("audit", "tail", "--lines", "2", "--json"))
    assert [event["kind"] for event in events] == ["create", "delete"]
    assert [event["block"] for event in events] == [block, block]
    assert re.fullmatch("(?:[0-9a-f]{2})+", events[1]["detail"]["statement"])
    assert events[0]["time"].endswith("Z") and events[0]["under"] == ""


def test_a_kit_never_lies_in_a_data_directory_also_over_http(serve: Callable[[], str]) -> None:
    status, token, _ = _tallystone(["init", "data"])
    assert status == 0
    save("me", token)
    words = ["user", "add", "ada", "--url", serve(), "--token-file", "me.token"]
    status, out, err = _tallystone([*words, "--kit", "data/ada.kit"])
    assert (status, out) == (2, "")
    assert "must not lie in a data directory" in err
    status, out, err = _tallystone(words)
    assert (status, out.startswith("tally_")) == (0, True), err


def test_the_vault_behind_a_url_takes_what_the_vault_takes() -> None:
    for name, method in inspect.getmembers(RemoteVault, inspect.isfunction):
        if name.startswith("_"):
            continue
        there = inspect.signature(getattr(Vault, name)).parameters
        for parameter in inspect.signature(method).parameters.values():
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                assert there[parameter.name].kind is parameter.kind, f"{name}: {parameter}"
                assert there[parameter.name].default == parameter.default, f"{name}: {parameter}"
