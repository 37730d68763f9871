"""A small language for stories about who may do what, and the runner that replays them.

A story is a list of steps: `("bob.share(plan, carol, write)", Denied)`. A line is `actor.verb(arguments)`. Actors,
blocks and roles are plain names; texts are strings; `+3` is the day three days from today, `-1` yesterday; rights are
`read`, `write`, `share`, `write+share`; lists hold names. Lines are parsed with `ast`, never evaluated.

    create(block, "text", read_only=True, locked=True, append_only=True, mutable=False, sensitivity=internal,
           allowed=[bob, staff], expires=+3)      set(block, locked=True, …)        delete(block)
    read(block)        write(block, "text")       append(block, "text")            list()
    agent(name)        attach(agent, block, read) detach(agent, block)             label(agent, block)
    tool(agent, block, "text"): the memory tool that appends
    share(block, who, right, until=+3, depth=1, history=False)                     revoke(block, who)
    accept(block or role)                         decline(block or role)           reach(block)
    role(name, clearance=internal, history=False) add(role, who, …, until=+3)      remove(role, who)
    unmake(role)       transfer(block, who)       take(block)                      keep(block)
    clear(who, level)  suspend(who)               resume(who)
    days(3), by the actor `time`: three days pass

What is expected of a step is `Ok`, the class of an error (exactly), or a value: `Sees("text")`, `Lists(b, c)`,
`Reaches(alice, bob)`.

A step that is expected to succeed is told to a model of plain dicts as well, which knows who then may read what. After
each step every principal looks with its own token and must see just what the model says: by list, and what the step
was about also by id and, if it is an agent, by label. After the last step everybody looks at everything in each way.
The model is no second implementation: it refuses nothing, for the steps say what is refused.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tallystone.errors import Conflict, NotFound, TallystoneError, Unauthenticated

EVERYWHERE = ("accept", "add", "remove", "unmake", "days", "suspend", "resume")
"""Verbs after which every block is looked at by id, not only those that the line names."""

LOOKS = ("read", "list", "label", "reach")
"""Verbs that change nothing for anybody."""


# -- what is expected -------------------------------------------------------------------------------------------


class Ok:
    """The step succeeds, with whatever answer."""


class Sees(str):
    """A read shows this text."""


class Names(frozenset[str]):
    """A set of names, in any order."""


def Lists(*names: str) -> Names:
    """A list shows these blocks."""
    return Names(names)


def Reaches(*names: str) -> Names:
    """These principals reach a block."""
    return Names(names)


Expected = type[Ok] | type[TallystoneError] | Sees | Names
Step = tuple[str, Expected]


class ToolRefused(Conflict):
    """A tool's answer says that it failed; which error it stands for is not on the wire."""


# -- lines ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Day:
    """A day, counted from today."""

    offset: int


@dataclass(frozen=True)
class Text:
    """A string in a line, as opposed to a name."""

    text: str


Argument = str | Text | Day | bool | int | list[Any] | None


@dataclass(frozen=True)
class Line:
    """A parsed step: names are plain strings."""

    actor: str
    verb: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]

    def name(self, place: int) -> str:
        """The name at this place."""
        found = self.arguments[place]
        if not isinstance(found, str):
            raise ScenarioError(f"{self.verb} needs a name at place {place}")
        return found

    def text(self, place: int) -> str:
        """The text at this place; empty if there is none."""
        found = self.arguments[place] if place < len(self.arguments) else Text("")
        if not isinstance(found, Text):
            raise ScenarioError(f"{self.verb} needs a text at place {place}")
        return found.text

    def right(self, place: int, default: str) -> str:
        """The right at this place."""
        return self.name(place) if place < len(self.arguments) else default


class ScenarioError(Exception):
    """A story that is itself wrong."""


def parse(line: str) -> Line:
    """A line of a story. Raises `ScenarioError` for anything but one call of a verb with plain arguments."""
    try:
        call = ast.parse(line, mode="eval").body
    except SyntaxError:
        raise ScenarioError(f"no step: {line}") from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        raise ScenarioError(f"no step: {line}")
    actor = call.func.value
    if not isinstance(actor, ast.Name) or call.func.attr not in VERBS:
        raise ScenarioError(f"no actor or no verb: {line}")
    options = {keyword.arg: _argument(keyword.value) for keyword in call.keywords if keyword.arg}
    if len(options) != len(call.keywords):
        raise ScenarioError(f"no plain options: {line}")
    return Line(actor.id, call.func.attr, tuple(_argument(one) for one in call.args), options)


def _argument(node: ast.expr) -> Argument:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Constant(value=str(text)):
            return Text(text)
        case ast.Constant(value=bool() | int() | None as value):
            return value
        case ast.UnaryOp(op=ast.UAdd(), operand=ast.Constant(value=int(days))):
            return Day(days)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(days))):
            return Day(-days)
        case ast.BinOp(op=ast.Add(), left=ast.Name(id=left), right=ast.Name(id=right)):
            return f"{left}+{right}"
        case ast.List(elts=elements):
            return [_argument(one) for one in elements]
    raise ScenarioError(f"no plain argument: {ast.unparse(node)}")


# -- the model --------------------------------------------------------------------------------------------------


@dataclass
class Given:
    """A grant; `through` is the grant of its giver, 0 for the owner's."""

    block: str
    to: str
    right: str
    until: int | None
    through: int


@dataclass
class Thing:
    """A block. `expires` is its last day."""

    owner: str
    text: str
    expires: int | None = None
    heir: str = ""


@dataclass
class Group:
    """A role: its owner, and its members with the last day of each."""

    owner: str
    members: dict[str, int | None] = field(default_factory=dict)
    waiting: dict[str, int | None] = field(default_factory=dict)


class Model:
    """Who may read what, after the steps that succeeded."""

    def __init__(self, users: Iterable[str]) -> None:
        self.users = list(users)
        self.today = 0
        self.sponsor: dict[str, str] = {}
        self.blocks: dict[str, Thing] = {}
        self.roles: dict[str, Group] = {}
        self.grants: dict[int, Given] = {}
        self.taken: set[tuple[str, str]] = set()
        self.suspended: set[str] = set()
        self._number = 0

    # -- looking

    @property
    def principals(self) -> list[str]:
        """Everybody with a token."""
        return [*self.users, *self.sponsor]

    def readable(self, who: str) -> dict[str, str]:
        """The blocks that somebody reads, with their texts."""
        if who in self.suspended or self.sponsor.get(who) in self.suspended:
            return {}
        return {block: thing.text for block, thing in self.blocks.items() if self._reads(who, block)}

    def _reads(self, who: str, block: str) -> bool:
        thing = self.blocks[block]
        if thing.expires is not None and self.today > thing.expires:
            return False
        return thing.owner == who or self._comes_by(who, block) is not None

    def _comes_by(self, who: str, block: str) -> int | None:
        """The grant that somebody comes by: its own first, then one of its roles'."""
        for recipient in [who, *self._roles_of(who)]:
            for number, grant in self.grants.items():
                fits = (grant.block, grant.to) == (block, recipient)
                if fits and (recipient, block) in self.taken and self._live(number):
                    return number
        return None

    def _roles_of(self, who: str) -> list[str]:
        found = [role for role, group in self.roles.items() if group.owner == who]
        pending = [who]
        while pending:
            member = pending.pop()
            for role, group in self.roles.items():
                ends = group.members.get(member, -1)
                if member in group.members and (ends is None or self.today <= ends):
                    pending.append(role)
                    found.append(role)
        return found

    def _live(self, number: int) -> bool:
        grant = self.grants.get(number)
        if grant is None or (grant.until is not None and self.today > grant.until):
            return False
        return grant.through == 0 or self._live(grant.through)

    # -- changing

    def apply(self, line: Line) -> None:
        """What a step that succeeded changes."""
        change = getattr(self, f"_{line.verb}", None)
        if change is not None:
            change(line)

    def _until(self, line: Line, name: str = "until") -> int | None:
        day = line.options.get(name)
        return self.today + day.offset if isinstance(day, Day) else None

    def _create(self, line: Line) -> None:
        self.blocks[line.name(0)] = Thing(line.actor, line.text(1), self._until(line, "expires"))

    def _set(self, line: Line) -> None:
        if "expires" in line.options:
            self.blocks[line.name(0)].expires = self._until(line, "expires")

    def _delete(self, line: Line) -> None:
        self.blocks.pop(line.name(0))
        self._end(number for number, grant in self.grants.items() if grant.block == line.name(0))

    def _write(self, line: Line) -> None:
        self.blocks[line.name(0)].text = line.text(1)

    def _append(self, line: Line) -> None:
        self.blocks[line.name(0)].text += "\n" + line.text(1)

    def _tool(self, line: Line) -> None:
        self.blocks[line.name(1)].text += "\n" + line.text(2)

    def _agent(self, line: Line) -> None:
        self.sponsor[line.name(0)] = line.actor

    def _grant(self, giver: str, block: str, to: str, right: str, until: int | None) -> None:
        through = 0 if self.blocks[block].owner == giver else self._comes_by(giver, block) or 0
        same = [
            number
            for number, grant in self.grants.items()
            if (grant.block, grant.to, grant.through) == (block, to, through) and self._live(number)
        ]
        kept = (to, block) in self.taken and bool(same)
        if same and self.grants[same[0]].right == right and self.grants[same[0]].until == until:
            return
        self._end(same)
        held = [n for n, one in self.grants.items() if (one.block, one.to) == (block, to) and self._live(n)]
        if not kept and not held:
            self.taken.discard((to, block))  # what ran out is not taken up again without being asked
        self._number += 1
        self.grants[self._number] = Given(block, to, right, until, through)
        home = self.sponsor.get(to) or (self.roles[to].owner if to in self.roles else "")
        if kept or home == giver:
            self.taken.add((to, block))

    def _end(self, numbers: Iterable[int]) -> None:
        """End grants with everything that was given through them."""
        for number in list(numbers):
            grant = self.grants.pop(number, None)
            if grant is None:
                continue
            self._end(below for below, other in list(self.grants.items()) if other.through == number)
            if not any((one.block, one.to) == (grant.block, grant.to) for one in self.grants.values()):
                self.taken.discard((grant.to, grant.block))

    def _share(self, line: Line) -> None:
        self._grant(line.actor, line.name(0), line.name(1), line.right(2, "read"), self._until(line))

    def _revoke(self, line: Line) -> None:
        block, who = line.name(0), line.name(1)
        own = 0 if self.blocks[block].owner == line.actor else self._comes_by(line.actor, block)
        self._end(
            number
            for number, grant in list(self.grants.items())
            if (grant.block, grant.to) == (block, who) and (own == 0 or self._below(number, own))
        )

    def _below(self, number: int, own: int | None) -> bool:
        while number and number != own:
            number = self.grants[number].through if number in self.grants else 0
        return number == own

    def _accept(self, line: Line) -> None:
        name = line.name(0)
        if name in self.roles:
            group = self.roles[name]
            group.members[line.actor] = group.waiting.pop(line.actor)
            return
        mine = [line.actor, *(agent for agent, user in self.sponsor.items() if user == line.actor)]
        mine += [role for role, group in self.roles.items() if group.owner == line.actor]
        self.taken |= {(one.to, name) for one in self.grants.values() if one.block == name and one.to in mine}

    def _decline(self, line: Line) -> None:
        if line.name(0) in self.roles:
            self.roles[line.name(0)].waiting.pop(line.actor)
        self.taken.discard((line.actor, line.name(0)))

    def _attach(self, line: Line) -> None:
        own = self._comes_by(line.actor, line.name(1))
        until = self.grants[own].until if own and self.blocks[line.name(1)].owner != line.actor else None
        self._grant(line.actor, line.name(1), line.name(0), line.right(2, "write"), until)

    def _detach(self, line: Line) -> None:
        self._end(
            number
            for number, grant in list(self.grants.items())
            if (grant.block, grant.to) == (line.name(1), line.name(0))
        )

    def _role(self, line: Line) -> None:
        self.roles[line.name(0)] = Group(line.actor)

    def _add(self, line: Line) -> None:
        group = self.roles[line.name(0)]
        for who in line.arguments[1:]:
            home = self.sponsor.get(who) or (self.roles[who].owner if who in self.roles else "")
            (group.members if home == line.actor else group.waiting)[who] = self._until(line)

    def _remove(self, line: Line) -> None:
        self.roles[line.name(0)].members.pop(line.name(1), None)
        self.roles[line.name(0)].waiting.pop(line.name(1), None)

    def _unmake(self, line: Line) -> None:
        role = line.name(0)
        self.roles.pop(role)
        self._end(number for number, grant in list(self.grants.items()) if grant.to == role)

    def _transfer(self, line: Line) -> None:
        self.blocks[line.name(0)].heir = line.name(1)

    def _keep(self, line: Line) -> None:
        self.blocks[line.name(0)].heir = ""

    def _take(self, line: Line) -> None:
        thing = self.blocks[line.name(0)]
        self._end(
            number
            for number, grant in list(self.grants.items())
            if (grant.block, grant.to) == (line.name(0), line.actor)
        )
        thing.owner, thing.heir = line.actor, ""

    def _suspend(self, line: Line) -> None:
        self.suspended.add(line.name(0))

    def _resume(self, line: Line) -> None:
        self.suspended.discard(line.name(0))

    def _days(self, line: Line) -> None:
        self.today += int(line.arguments[0])


VERBS = frozenset(
    ["read", "list", "label", "reach", "clear"]
    + [name[1:] for name in vars(Model) if name[0] == "_" and name[1] != "_" and name[1:].islower()]
) - {"reads", "comes_by", "roles_of", "live", "until", "grant", "end", "below"}


# -- replaying --------------------------------------------------------------------------------------------------


class Stage(Protocol):
    """Where a story is played: the vault itself, or a server. Names are the story's. `thorough`: each step is
    followed by everybody's list and by looks by id and by label; else what changed something is, by lists."""

    thorough: bool

    def do(self, line: Line) -> object:
        """Play a line, as its actor, with a token of the actor's own. Raises our errors."""

    def listed(self, who: str) -> dict[str, str]:
        """The blocks that somebody finds by listing, with their texts."""

    def by_id(self, who: str, block: str) -> str:
        """A block's text, by id."""

    def by_label(self, agent: str, block: str) -> str:
        """A block's text, by its label, as the agent."""


@dataclass(frozen=True)
class Scenario:
    """A story. Its users are new; `root` may act as well: the workspace's first user, who sees nothing of theirs."""

    name: str
    users: Sequence[str]
    steps: Sequence[Step]

    def __str__(self) -> str:
        return self.name


def replay(scenario: Scenario, stage: Stage) -> None:
    """Play the story on the stage. Raises `AssertionError` for the first step that does not go as expected."""
    model = Model(scenario.users)
    for number, (text, expected) in enumerate(scenario.steps, 1):
        line = parse(text)
        where = f"{scenario.name}, step {number}: {text}"
        answer: object
        changed = False
        try:
            answer = stage.do(line)
        except TallystoneError as error:
            assert _is_error(expected), f"{where}: {type(error).__name__} ({error.code}: {error})"
            fits = type(error) is expected or (isinstance(error, ToolRefused) and line.verb == "tool")
            assert fits, f"{where}: {type(error).__name__} ({error.code}: {error})"
        else:
            assert not _is_error(expected), f"{where}: succeeded"
            if isinstance(expected, Sees):
                assert answer == str(expected), f"{where}: sees {answer!r}"
            elif isinstance(expected, Names):
                assert isinstance(answer, Iterable) and frozenset(answer) == expected, f"{where}: {answer}"
            model.apply(line)
            changed = line.verb not in LOOKS
        last = number == len(scenario.steps)
        if not (stage.thorough or last or changed):
            continue
        about = model.blocks if last else _about(model, line) if stage.thorough else []
        for complaint in differences(model, stage, about):
            raise AssertionError(f"{where}: then {complaint}")


def _about(model: Model, line: Line) -> list[str]:
    """The blocks that a line may have changed something of."""
    named = [block for block in model.blocks if block in line.arguments]
    return list(model.blocks) if line.verb in EVERYWHERE and not named else named


def _is_error(expected: Expected) -> bool:
    return isinstance(expected, type) and issubclass(expected, TallystoneError)


def differences(model: Model, stage: Stage, blocks: Iterable[str]) -> Iterator[str]:
    """Where somebody's own view is not the model's; these blocks are looked at by id and by label as well."""
    for who in model.principals:
        wanted = model.readable(who)
        try:
            found = stage.listed(who)
        except Unauthenticated:
            found = {}
        if found != wanted:
            yield f"{who} lists {found}, and should {wanted}"
        ways = [("by id", stage.by_id)] + ([("by label", stage.by_label)] if who in model.sponsor else [])
        for block in blocks:
            for way, look in ways:
                shown = _looked(look, who, block)
                if shown != wanted.get(block):
                    yield f"{who} sees {shown!r} of {block} {way}, and should {wanted.get(block)!r}"


def _looked(look: Any, who: str, block: str) -> str | None:
    try:
        return str(look(who, block))
    except (NotFound, Unauthenticated):
        return None
