"""What people do who would like more than they have: each attack takes an honest step and bends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from naive_policy import Claim, Granted, Roster, Statement, Step, Writing
from policy_histories import RIGHTS, TODAY, History

Attack = Callable[[History, Statement], Statement]


# -- on the way that somebody claims ----------------------------------------------------------------------------


def stolen(history: History, by: Claim) -> Claim:
    """Somebody else's way."""
    return replace(by, who=history.anybody())


def edited_leaf(history: History, by: Claim) -> Claim:
    """One's own grant, but better than it is."""
    return replace(by, grant=better(history, by.grant)) if by.grant else Claim(history.anybody())


def better(history: History, grant: Granted) -> Granted:
    """A grant with one of its terms changed."""
    chance = history.chance
    terms: dict[str, Any] = {
        "rights": chance.choice(RIGHTS), "until": chance.choice((None, TODAY + 9)), "depth": grant.depth + 1,
        "history": True, "through": chance.choice((0, 1, 2)), "record": grant.record + chance.choice((-1, 1)),
        "to": history.anybody(), "key": grant.key + 1,
    }  # fmt: skip
    name = chance.choice(tuple(terms))
    return replace(grant, **{name: terms[name]})


def moved_leaf(history: History, by: Claim) -> Claim:
    """One's own grant at another place."""
    return replace(by, number=history.chance.choice((1, 2, 3, 4)))


def old_proof(history: History, by: Claim) -> Claim:
    """The proof of other times."""
    state = history.chance.choice(history.naive.states)
    return replace(by, beside={n: one for n, one in state.books.items() if n != by.number})


def earlier_way(history: History, by: Claim) -> Claim:
    """A way that somebody has shown before."""
    return history.chance.choice(history.shown)


def old_head(history: History, by: Claim) -> Claim:
    """An older head of one of the roles on the way, from when one was in it perhaps."""
    return bent_step(history, by, lambda step: replace(step, roster=any_head(history, step.roster.role)))


def any_head(history: History, role: str) -> Roster:
    """Any head that a role has ever had."""
    return history.chance.choice(history.roles[role].heads)


def other_role(history: History, by: Claim) -> Claim:
    """A head of another role."""
    return bent_step(
        history, by,
        lambda step: replace(step, roster=any_head(history, history.chance.choice(tuple(history.roles)))),
    )  # fmt: skip


def false_head(history: History, by: Claim) -> Claim:
    """A head that a role's owner signed to suit: of other members, another record, another role's record."""

    def bend(step: Step) -> Step:
        roster, chance = step.roster, history.chance
        ghost = Granted(by.who, frozenset({"read"}), key=9)
        return chance.choice(
            (
                replace(step, roster=replace(roster, record=max(roster.record - 1, 0))),
                replace(step, roster=replace(roster, record_of=chance.choice(tuple(history.roles)))),
                replace(step, roster=replace(roster, serial=roster.serial + chance.choice((-1, 1, 7)))),
                Step(replace(roster, members={**roster.members, 99: ghost}), 99, ghost),
            )
        )

    return bent_step(history, by, bend)


def false_member(history: History, by: Claim) -> Claim:
    """A membership that is not in the head, or somebody else's, or at another number."""

    def bend(step: Step) -> Step:
        chance = history.chance
        ghost = Granted(by.who, frozenset({"read"}), key=9)
        if step.member is None or history.often(0.3):
            return replace(step, number=9, member=ghost)
        moved = replace(step, number=step.number + 1)
        return chance.choice((moved, replace(step, member=better(history, step.member)), Step(step.roster)))

    return bent_step(history, by, bend)


def bent_step(history: History, by: Claim, bend: Callable[[Step], Step]) -> Claim:
    """One of the roles on the way, bent; a way without roles gets one."""
    if not by.via:
        role = history.chance.choice(tuple(history.roles.values()))
        return replace(by, via=(bend(Step(role.heads[-1])),))
    place = history.chance.randrange(len(by.via))
    return replace(by, via=(*by.via[:place], bend(by.via[place]), *by.via[place + 1 :]))


def cut_way(history: History, by: Claim) -> Claim:
    """A way without one of its roles, or with one twice."""
    if not by.via:
        return stolen(history, by)
    place = history.chance.randrange(len(by.via))
    again = (by.via[place],) * history.chance.choice((0, 0, 2, 9))
    return replace(by, via=(*by.via[:place], *again, *by.via[place + 1 :]))


WAYS: tuple[Callable[[History, Claim], Claim], ...] = (
    stolen, edited_leaf, moved_leaf, old_proof, earlier_way, old_head, other_role, false_head, false_member, cut_way,
)  # fmt: skip


# -- on statements ----------------------------------------------------------------------------------------------


def bent_way(history: History, said: Statement) -> Statement:
    """Any of the false ways; mostly whoever claims it issues the statement too."""
    by = history.chance.choice(WAYS)(history, said.by)
    issuer = by.who if history.often(0.85) else said.issuer
    return replace(said, by=by, issuer=issuer)


def forged_issuer(history: History, said: Statement) -> Statement:
    """Somebody else issues it, on this one's grant."""
    return replace(said, issuer=history.anybody())


def wrong_place(history: History, said: Statement) -> Statement:
    """A statement that does not follow the latest, or is another block's."""
    earlier = history.chance.choice(history.naive.states)
    return history.chance.choice(
        (
            replace(said, number=said.number + history.chance.choice((-1, 1))),
            replace(said, follows=earlier.name),
            replace(said, number=earlier.number + 1, follows=earlier.name),
            replace(said, block="block-2"),
        )
    )


def other_version(history: History, said: Statement) -> Statement:
    """Made on another version than the newest: an older one, a forged one, one to come."""
    number, name = said.on
    return history.chance.choice(
        (
            replace(said, on=(number, "version forged")),
            replace(said, on=(number - 1, name)),
            replace(said, on=(number + 1, f"version slipped in at {said.number}")),
        )
    )


def owners_part(history: History, said: Statement) -> Statement:
    """Changes what is the owner's alone."""
    chance, settings = history.chance, history.other_settings(said.settings)
    if said.issuer != history.naive.now.owner and history.often(0.2):
        settings = {**said.settings, "locked": int(said.settings["locked"])}
    return chance.choice(
        (
            replace(said, settings=settings),
            replace(said, settings=settings),
            replace(said, owner=said.issuer),
            replace(said, owner=history.anybody()),
            replace(said, admin=said.admin + 1000),
        )
    )


def numbers(history: History, said: Statement) -> Statement:
    """Skips or reuses numbers of grants or epochs."""
    step = history.chance.choice((-1, 1, 2))
    return (
        replace(said, next=said.next + step) if history.often(0.5) else replace(said, epoch=said.epoch + step)
    )


def hidden_due(history: History, said: Statement) -> Statement:
    """Says that keys must change where it need not, or hides it where it must."""
    return replace(said, due=not said.due)


def ghost_grant(history: History, said: Statement) -> Statement:
    """Slips another grant in beside what it names, or drops or betters one."""
    books = dict(said.books)
    if books and history.often(0.7):
        number = history.chance.choice(tuple(books))
        if history.often(0.4):
            del books[number]
        else:
            books[number] = better(history, books[number])
    else:
        books[said.next + 3] = Granted(history.anybody(), frozenset({"write"}), key=9)
    return replace(said, books=books)


def wants_more(history: History, said: Statement) -> Statement:
    """A grant of more than one holds, to whom one may not, through what is not one's own."""
    if said.added is None:
        return hidden_due(history, said)
    number, wanted = said.added
    chance = history.chance
    other = chance.choice(
        (
            better(history, wanted),
            replace(wanted, rights=wanted.rights | {"share"}, depth=chance.choice((0, 0, 1, 2, -1))),
            replace(wanted, until=chance.choice((None, TODAY + 9))),
            replace(wanted, history=True),
        )
    )
    number += history.chance.choice((0, 0, 0, 0, 0, 1, -1))
    books = {n: one for n, one in said.books.items() if n != said.added[0]}
    return replace(said, added=(number, other), books={**books, number: other})


def ends_more(history: History, said: Statement) -> Statement:
    """A revocation of what one has not given: another's grant, one's own, the children before their parents; or of a
    part of it only."""
    gone, books = list(said.gone), history.naive.now.books
    if not books:
        return forged_issuer(history, said)
    bend = history.chance.choice(("other", "other", "more", "order", "twice", "none", "part"))
    one = history.chance.choice(tuple(books.items()))
    if bend == "other":
        gone = [one]
    elif bend == "more":
        gone.append(one)
    elif bend == "order":
        gone.reverse()
    elif bend == "twice":
        gone += gone[:1]
    else:
        gone = gone[:-1] if bend == "part" else []
    left = {n: grant for n, grant in books.items() if n not in dict(gone)}
    return replace(said, kind="revocation", gone=tuple(gone), books=left)


def false_keys(history: History, said: Statement) -> Statement:
    """A change of keys that changes more than keys: leaves a grant out, betters one, goes back to an earlier record."""
    chance, now, books = history.chance, history.naive.now, history.naive.now.books
    listed = [(n, one, len(history.people[one.to].clearances) - 1, 50 + n) for n, one in books.items()]
    bend = chance.choice(
        ("out", "out of both", "twice", "better", "record", "record", "unsaid", "plain", "same")
    )
    if bend in ("out", "out of both", "better", "record", "twice") and not listed:
        return wrong_place(history, said)
    place = chance.randrange(len(listed)) if listed else 0
    if bend == "out of both":
        del listed[place]
    elif bend == "twice":
        listed.append(listed[place])
    elif bend == "record":
        number, grant, record, key = listed[place]
        listed[place] = (number, grant, record + chance.choice((-2, -1, 1)), key)
    elif bend == "better":
        number, grant, record, key = listed[place]
        listed[place] = (number, better(history, grant), record, key)
    after = {number: replace(grant, record=record, key=key) for number, grant, record, key in listed}
    if bend == "out":
        del listed[place]
    return replace(
        said, kind="policy", epoch=now.epoch + 1, rotated=bend != "unsaid", added=None, gone=(), next=now.next,
        books=after, renewed=None if bend == "plain" else tuple(listed),
    )  # fmt: skip


def other_kind(history: History, said: Statement) -> Statement:
    """The same under another name."""
    kinds = ("grant", "revocation", "policy", "transfer", "membership", "version")
    return replace(said, kind=history.chance.choice(kinds))


def takes_over(history: History, said: Statement) -> Statement:
    """A transfer to somebody whom the owner did not name, or with something more."""
    settings = history.naive.now.settings
    who = settings["transfer"][0] if "transfer" in settings and history.often(0.5) else history.anybody()
    taking = history.taking_over(who)
    return history.chance.choice((taking, taking, owners_part(history, taking), numbers(history, taking)))


def replayed(history: History, said: Statement) -> Statement:
    """An earlier statement again: as it was, or put in the place of the next one by its issuer."""
    if not history.said:
        return wrong_place(history, said)
    earlier = history.chance.choice(history.said)
    if history.often(0.3):
        return earlier
    fresh = history.statement(earlier.kind, earlier.by)
    books = {**fresh.books, **dict((earlier.added,))} if earlier.added else fresh.books
    next_one = fresh.next + 1 if earlier.added else fresh.next
    return replace(
        fresh, issuer=earlier.issuer, added=earlier.added, gone=earlier.gone, renewed=earlier.renewed, books=books,
        next=next_one, rotated=earlier.rotated, epoch=fresh.epoch + int(earlier.rotated),
    )  # fmt: skip


STATEMENTS: tuple[Attack, ...] = (
    bent_way, bent_way, bent_way, forged_issuer, wrong_place, other_version, owners_part, numbers, hidden_due,
    ghost_grant, wants_more, wants_more, ends_more, false_keys, false_keys, other_kind, takes_over, replayed,
)  # fmt: skip


# -- on versions ------------------------------------------------------------------------------------------------


def back_dated(history: History, made: Writing) -> Writing:
    """Cites an earlier statement, under which the writer still had the right; or one that there is not."""
    earlier = history.chance.choice(history.naive.states)
    cites = history.chance.choice(
        (
            (earlier.number, earlier.name),
            (earlier.number, earlier.name),
            (earlier.number, "forged"),
            (99, "forged"),
        )
    )
    number = made.number + history.chance.choice((0, 0, -1))
    beside = {n: one for n, one in earlier.books.items() if n != made.by.number}
    return replace(made, cites=cites, number=number, by=replace(made.by, beside=beside))


def slipped_in(history: History, made: Writing) -> Writing:
    """The very version that a later statement claims to be made on; it cites one from before."""
    on, states = history.naive.now.on, history.naive.states
    if on == (0, "") or any(one.name == on[1] for one in history.naive.writings):
        return back_dated(history, made)
    before = history.chance.choice(
        [state for state in states if state.on != on]
    )  # a hash cites no later hash
    beside = {n: one for n, one in before.books.items() if n != made.by.number}
    by = replace(made.by, beside=beside)
    return replace(made, number=on[0], name=on[1], cites=(before.number, before.name), by=by)


def by_another(history: History, made: Writing) -> Writing:
    """Another writer than the one who shows the way."""
    return replace(made, writer=history.anybody())


def by_false_way(history: History, made: Writing) -> Writing:
    """A false way, by the one who claims it."""
    by = history.chance.choice(WAYS)(history, made.by)
    seen = dict(made.seen) if history.often(0.2) else {**made.seen, **serials(by)}
    return replace(made, by=by, writer=by.who, seen=seen)


def serials(by: Claim) -> dict[str, int]:
    """The serials of the heads on a way."""
    return {step.roster.role: step.roster.serial for step in by.via}


def false_serials(history: History, made: Writing) -> Writing:
    """Forgets the heads that were written under, or tells of ones that were not."""
    seen = dict(made.seen)
    role = history.chance.choice(tuple(seen) or tuple(history.roles))
    if role in seen and history.often(0.5):
        del seen[role]
    else:
        seen[role] = seen.get(role, 0) + history.chance.choice((-1, 1, 1000))
    return replace(made, seen=seen)


def other_number(history: History, made: Writing) -> Writing:
    """Older than the newest, or another block's."""
    if history.often(0.3):
        return replace(made, block="block-2")
    return replace(made, number=made.number + history.chance.choice((-2, -1, 1)))


def other_content(history: History, made: Writing) -> Writing:
    """Content that does more than append."""
    return history.chance.choice((replace(made, value="all new"), replace(made, rest="label")))


WRITINGS: tuple[Callable[[History, Writing], Writing], ...] = (
    back_dated, back_dated, slipped_in, by_another, by_false_way, by_false_way, by_false_way, false_serials,
    other_number, other_content,
)  # fmt: skip
