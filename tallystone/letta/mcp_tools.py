"""From what an MCP server says of its tools to tools that agents can be given. Pure.

Whatever a server says is foreign: names become ones that every model provider takes, descriptions are cut, schemas that
no provider would take leave their tool out. A refused tool would otherwise refuse every answer of its agent.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tallystone.letta.arguments import clean
from tallystone.letta.tools import BY_NAME, uuid_of
from tallystone.vault.types import ExternalTool

if TYPE_CHECKING:
    from tallystone.letta.mcp_wire import Listed

MAX_TOOLS = 200
"""Tools of one server that are kept."""
MAX_DESCRIPTION = 4000
"""Characters of a tool's description that are kept."""
MAX_SCHEMA = 20_000
"""Characters of a tool's JSON schema, its references written out."""
MAX_NAME = 64
"""Characters of a name that every provider takes."""
_MAX_REMOTE = 500
_DEPTH = 32
_GOOD = re.compile(rf"[A-Za-z_][A-Za-z0-9_-]{{0,{MAX_NAME - 1}}}")
_ELSEWHERE = ("$schema", "$id", "$defs", "definitions", "$comment", "$anchor")
_NAMED = ("properties", "patternProperties", "dependentSchemas")
_VALUES = ("default", "const", "enum", "examples", "example")


class Unfit(Exception):
    """Why a tool is left out: the end of a sentence."""


def admitted(server: str, listed: Sequence[Listed]) -> tuple[list[ExternalTool], list[dict[str, str]]]:
    """The tools of a list that can be used, and for each other one its `name` and the `reason`.

    A tool keeps the name that its server gives it, if providers take it and no tool of ours has it. Names that are so
    are given first, so that no made-up name takes one away.
    """
    tools: list[ExternalTool] = []
    skipped: list[dict[str, str]] = []
    names = _names([one.name for one in listed])
    for position, one in enumerate(listed):
        try:
            if len(tools) >= MAX_TOOLS:
                raise Unfit(f"only {MAX_TOOLS} tools of a server are kept")
            if one.name not in names or any(tool.remote == one.name for tool in tools):
                raise Unfit("its name is empty, too long, or used twice")
            parameters = _written(one.schema)
        except Unfit as why:
            skipped.append({"name": clean(one.name)[:MAX_NAME], "reason": str(why)})
            continue
        description = clean(one.description)[:MAX_DESCRIPTION]
        identity = f"tool-{uuid_of('mcp-tool', server, one.name)}"
        tools.append(
            ExternalTool(identity, names[one.name], server, one.name, description, parameters, position)
        )
    return tools, skipped


def _names(remotes: Sequence[str]) -> dict[str, str]:
    """What agents call each tool by."""
    usable = [name for name in dict.fromkeys(remotes) if 0 < len(name) <= _MAX_REMOTE and clean(name) == name]
    given = {name: name for name in usable if _GOOD.fullmatch(name) and name not in BY_NAME}
    taken = set(given.values())
    for name in usable:
        if name not in given:
            given[name] = _made_up(name, taken)
            taken.add(given[name])
    return given


def _made_up(remote: str, taken: Iterable[str]) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]", "_", remote)
    if name in BY_NAME or not _GOOD.match(name):
        name = f"mcp_{name}"
    if len(name) > MAX_NAME or name in taken or name in BY_NAME:
        name = f"{name[: MAX_NAME - 9]}_{hashlib.sha256(remote.encode()).hexdigest()[:8]}"
    return name


# -- schemas ------------------------------------------------------------------------------------------------------


def _written(schema: Mapping[str, Any]) -> str:
    try:
        return clean(json.dumps(_parameters(schema), ensure_ascii=False, allow_nan=False))
    except (ValueError, RecursionError):
        raise Unfit("its schema holds something that is no JSON") from None


def _parameters(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of an object, without references. Raises `Unfit`."""
    if schema.get("type", "object") != "object":
        raise Unfit("its arguments are no object")
    written = _Writer(schema).node(schema, _DEPTH, ())
    assert isinstance(written, dict)
    if not isinstance(written.setdefault("properties", {}), dict):
        raise Unfit("its schema has no properties")
    made = {"type": "object", **written}
    if not _is_schema(made):
        raise Unfit("its schema is none")
    return made


def _is_schema(value: Mapping[str, Any]) -> bool:
    """Whether this is a JSON schema at all. Nothing of it is run: it is the data here."""
    # it comes with `mcp`, and is loaded as late
    from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]  # it has no types

    try:
        Draft202012Validator.check_schema(value)
    except SchemaError:
        return False
    return True


class _Writer:
    """A schema with its references written out: providers know some kinds of them, and no two the same."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = MAX_SCHEMA

    def node(self, value: Any, depth: int, within: tuple[str, ...]) -> Any:
        """`value` written out; `within` are the references that led here. Raises `Unfit`."""
        if depth == 0:
            raise Unfit("its schema is nested too deeply")
        if isinstance(value, list):
            self._spend(2 * len(value))
            return [self.node(one, depth - 1, within) for one in value]
        if not isinstance(value, dict):
            self._spend(len(str(value)))
            return value
        reference = value.get("$ref")
        if isinstance(reference, str):
            return self._referred(reference, value, depth, within)
        written: dict[str, Any] = {}
        for name, one in value.items():
            if name in _ELSEWHERE:
                continue
            self._spend(len(name) + 6)
            if name in _NAMED and isinstance(one, dict):
                # here the keys are the server's names, not words of JSON Schema
                self._spend(sum(len(key) + 6 for key in one))
                written[name] = {key: self.node(there, depth - 1, within) for key, there in one.items()}
            elif name in _VALUES:
                self._spend(len(json.dumps(one)))
                written[name] = one
            else:
                written[name] = self.node(one, depth - 1, within)
        return written

    def _referred(self, reference: str, value: Mapping[str, Any], depth: int, within: tuple[str, ...]) -> Any:
        if reference in within:
            return {}  # a thing that contains itself: from here on it may be anything
        there = self.node(self._at(reference), depth - 1, (*within, reference))
        beside = self.node({name: one for name, one in value.items() if name != "$ref"}, depth - 1, within)
        return {**there, **beside} if isinstance(there, dict) else there

    def _spend(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise Unfit(f"its schema has more than {MAX_SCHEMA} characters")

    def _at(self, reference: str) -> Any:
        """What a reference within the schema names."""
        place: Any = self._root
        steps = reference.split("/")
        if steps[0] != "#":
            raise Unfit("its schema refers to something outside of it")
        for step in steps[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(place, dict) and step in place:
                place = place[step]
            elif isinstance(place, list) and step.isdecimal() and len(step) < 6 and int(step) < len(place):
                place = place[int(step)]
            else:
                raise Unfit("its schema refers to something that is not there")
        return place
