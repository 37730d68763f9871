"""The access matrix as letters."""

from __future__ import annotations

import pytest

from tallystone.cli.access import WIDEST, access, matrix
from tallystone.cli.place import Place
from tallystone.vault.types import Access


def cell(who: str, rights: str, through: str = "", block: str = "block-1", label: str = "plans") -> Access:
    """What one principal holds on a block."""
    return Access(f"user-{who}", who, block, label, rights, through)


@pytest.mark.parametrize(
    ("cells", "shown"),
    [
        ([cell("ada", "owner"), cell("ada", "write", "owns role eng")], "owner"),
        ([cell("ada", "read")], "R"),
        ([cell("ada", "write")], "RW"),
        ([cell("ada", "share")], "RS"),
        ([cell("ada", "write+share")], "RWS"),
        ([cell("ada", "write", "is a member of role eng")], "(RW)"),
        ([cell("ada", "read"), cell("ada", "write", "is a member of role eng")], "R (RW)"),
        ([cell("ada", "write"), cell("ada", "read", "is a member of role eng")], "RW"),
        (
            [cell("ada", "share", "is a member of role a"), cell("ada", "write", "is a member of role b")],
            "(RWS)",
        ),
    ],
)
def test_a_cell_joins_what_is_held_directly_and_through_roles(cells: list[Access], shown: str) -> None:
    assert matrix(cells) == (["PRINCIPAL", "plans"], [["ada", shown]])


def test_a_matrix_has_a_row_each_and_a_column_each() -> None:
    cells = [cell("ada", "owner"), cell("bob", "read", block="block-12345678-2"), cell("", "read")]
    columns, rows = matrix(cells)
    assert columns == ["PRINCIPAL", "plans (1)", "plans (12345678)"]
    assert rows == [["ada", "owner", "-"], ["bob", "-", "R"], ["user-", "R", "-"]]


def test_many_blocks_are_listed_instead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Many:
        def access(self) -> list[Access]:
            return [
                cell("ada", "share", "is a member of role eng", f"block-{n}", f"l{n}")
                for n in range(WIDEST + 1)
            ]

        def __enter__(self) -> Many:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(Place, "vault", lambda self: Many())
    assert access(place=Place()) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == [
        "PRINCIPAL\tLABEL\tRIGHTS\tTHROUGH\tBLOCK",
        "ada\tl0\tRS\tis a member of role eng\tblock-0",
    ]
    assert len(out) == WIDEST + 2
