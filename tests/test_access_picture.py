"""The picture of the access matrix: what it says to eyes and to ears, and that no name breaks out of it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_fixtures import Served, server  # noqa: F401

from tallystone.cli.access import access
from tallystone.cli.place import Place, Usage
from tallystone.letta.access_picture import LONGEST, draw
from tallystone.vault.types import Access

SVG = "{http://www.w3.org/2000/svg}"
ROLE = "is a member of role eng"


def cell(who: str, rights: str, through: str = "", *, block: str = "1", label: str = "plans") -> Access:
    """What one principal, `kind-name`, holds on a block."""
    return Access(who, who.partition("-")[2], f"block-{block}", label, rights, through)


def parsed(cells: list[Access]) -> ET.Element:
    return ET.fromstring(draw(cells))


def words(cells: list[Access]) -> list[str]:
    """Everything that is drawn as text."""
    return [text.text or "" for text in parsed(cells).iter(f"{SVG}text")]


def told(cells: list[Access]) -> list[str]:
    """What each cell says when it is pointed at or read out."""
    return [
        title.text or "" for group in parsed(cells).iter(f"{SVG}g") for title in group.iter(f"{SVG}title")
    ]


def chips(cells: list[Access]) -> list[tuple[str, bool]]:
    """The chips of the cells: the letter's colour class, and whether it is filled."""
    found = [rect for group in parsed(cells).iter(f"{SVG}g") for rect in group.iter(f"{SVG}rect")]
    return [(rect.attrib["class"].removesuffix("-rim"), rect.attrib["fill"] != "none") for rect in found]


@pytest.mark.parametrize(
    ("cells", "drawn", "said"),
    [
        ([cell("user-ada", "owner")], [("owner", True)], "ada owns plans"),
        ([cell("user-ada", "owner"), cell("user-ada", "read", ROLE)], [("owner", True)], "ada owns plans"),
        ([cell("user-ada", "read")], [("R", True)], "ada reads plans"),
        (
            [cell("user-ada", "write+share")],
            [("R", True), ("W", True), ("S", True)],
            "ada reads, writes and shares plans",
        ),
        (
            [cell("user-ada", "write", ROLE)],
            [("R", False), ("W", False)],
            f"ada reads and writes plans ({ROLE})",
        ),
        (
            [cell("user-ada", "share"), cell("user-ada", "write", ROLE)],
            [("R", True), ("W", False), ("S", True)],
            f"ada reads, writes and shares plans ({ROLE})",
        ),
        (
            [cell("user-ada", "write"), cell("user-ada", "read", ROLE)],
            [("R", True), ("W", True)],
            "ada reads and writes plans",
        ),
    ],
)
def test_a_cell_shows_what_is_held_and_tells_direct_from_through_a_role(
    cells: list[Access], drawn: list[tuple[str, bool]], said: str
) -> None:
    assert chips(cells) == drawn
    assert told(cells) == [said]


def test_whoever_cannot_see_it_hears_the_whole_matrix() -> None:
    cells = [cell("user-ada", "owner"), cell("agent-ari", "read"), cell("role-eng", "write")]
    root = parsed(cells)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"].split() == ["access-title", "access-desc"]
    heard = {item.attrib.get("id"): item.text for item in root}
    assert heard["access-title"] == "Who can reach what"
    assert heard["access-desc"] == "ada owns plans. eng reads and writes plans. ari reads plans."


def test_rows_stand_by_kind_and_everybody_has_one() -> None:
    cells = [
        cell("agent-ari", "read"),
        cell("role-eng", "read"),
        cell("user-ada", "owner"),
        cell("agent-ben", "read"),
    ]
    rows = [word for word in words(cells) if word in ("Users", "Roles", "Agents", "ada", "eng", "ari", "ben")]
    assert rows == ["Users", "ada", "Roles", "eng", "Agents", "ari", "ben"]


def test_namesakes_are_told_apart_by_their_ids() -> None:
    cells = [
        Access("agent-11111111-a", "ari", "block-33333333-a", "plans", "read"),
        Access("agent-22222222-a", "ari", "block-44444444-a", "plans", "read"),
        Access("user-55555555-a", "", "block-44444444-a", "plans", "owner"),
    ]
    shown = words(cells)
    for name in (
        "ari (11111111)",
        "ari (22222222)",
        "plans (33333333)",
        "plans (44444444)",
        "user-55555555-a",
    ):
        assert shown.count(name) == 1


def test_private_blocks_of_one_label_share_a_column() -> None:
    cells = []
    for number, who in enumerate(("agent-ari", "agent-ben")):
        cells.append(cell("user-ada", "owner", block=str(number), label="persona"))
        cells.append(cell(who, "write", block=str(number), label="persona"))
    assert "persona ×2" in words(cells)
    assert told(cells) == [
        "ada owns persona ×2",
        "ari reads and writes its own persona",
        "ben reads and writes its own persona",
    ]


@pytest.mark.parametrize(
    "more",
    [
        cell("agent-cas", "read", block="1", label="persona"),  # one of them is shared
        cell("agent-ari", "read", block="1", label="persona"),  # one agent reaches both
        cell("user-bob", "owner", block="2", label="persona"),  # another owner has one
        Access("agent-ari", "ari", "block-2", "persona", "read"),  # nobody knows whose it is
    ],
)
def test_blocks_that_are_not_private_never_share_a_column(more: Access) -> None:
    cells = []
    for number, who in enumerate(("agent-ari", "agent-ben")):
        cells.append(cell("user-ada", "owner", block=str(number), label="persona"))
        cells.append(cell(who, "write", block=str(number), label="persona"))
    assert not [word for word in words([*cells, more]) if "×" in word]


HOSTILE = (
    "<script>alert(1)</script>",
    '"/><script xlink:href="x"/>',
    "]]></style><style>*{display:none}",
    "&amp;lt;b&#60;",
    "a\u202egnp.exe\u2066",
    "nul\x00 esc\x1b[2J",
    "\ufffe\uffff",
    "--><!--",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_or_label_breaks_out_of_its_text(text: str) -> None:
    plain = [Access("agent-a", "name", "block-1", "label", "read", "through")]
    found = [Access("agent-a", text, "block-1", text, "read", text)]
    assert shape(draw(found)) == shape(draw(plain))
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\ufffe\uffff]", draw(found))


def shape(svg: str) -> list[tuple[str, list[str]]]:
    """The elements and their attributes, without what they say or where they stand."""
    return [(item.tag, sorted(item.attrib)) for item in ET.fromstring(svg).iter()]


@given(
    st.lists(
        st.tuples(st.text(max_size=60), st.text(max_size=60), st.sampled_from(["read", "owner"])), max_size=4
    )
)
def test_any_names_make_well_formed_equal_bytes(told_: list[tuple[str, str, str]]) -> None:
    cells = [
        Access(f"agent-{n}", name, f"block-{n}", label, can) for n, (name, label, can) in enumerate(told_)
    ]
    svg = draw(cells)
    assert ET.fromstring(svg).tag == f"{SVG}svg"
    assert draw(list(cells)) == svg
    svg.encode()


def test_long_names_are_cut_where_they_are_drawn_and_whole_where_they_are_said() -> None:
    long = "x" * 500
    cells = [Access("agent-a", "ari", "block-1", long, "read")]
    assert max(len(word) for word in words(cells)) <= LONGEST
    assert told(cells) == [f"ari reads {long}"]


def test_an_empty_matrix_says_so() -> None:
    assert "no blocks yet" in words([])


def test_it_needs_nothing_from_elsewhere() -> None:
    svg = draw([cell("user-ada", "owner")])
    assert re.findall(r"https?://[^\"<]+", svg) == ["http://www.w3.org/2000/svg"]
    assert "url(" not in svg and "@import" not in svg and "href" not in svg


# -- where it is asked for --------------------------------------------------------------------------------------


def test_the_server_draws_what_it_lists(server: Served) -> None:  # noqa: F811
    client = server.letta()
    block = client.blocks.create(label="<plans>", value="v")
    agent = client.agents.create(name="ari & co", block_ids=[block.id])
    answer = server.http().get("/v1/access", params={"format": "svg"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/svg+xml; charset=utf-8"
    assert answer.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    cells = [Access(**one) for one in server.http().get("/v1/access").json()]
    assert answer.text == draw(cells)
    assert f"{agent.name} reads and writes <plans>" in told(cells)
    assert client.get("/v1/access", cast_to=str, options={"params": {"format": "svg"}}) == answer.text


def test_a_picture_shows_nobody_what_they_may_not_know(server: Served) -> None:  # noqa: F811
    server.letta().blocks.create(label="not for ada", value="v")
    hers = server.http(server.add_user("ada"))
    assert "not for ada" not in hers.get("/v1/access", params={"format": "svg"}).text


def test_another_format_is_refused(server: Served) -> None:  # noqa: F811
    answer = server.http().get("/v1/access", params={"format": "png"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid")


def test_the_command_line_writes_it(
    server: Served,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.letta().blocks.create(label="drawn", value="v")
    monkeypatch.setenv("TALLYSTONE_TOKEN", server.token)
    place, file = Place(url=server.url), tmp_path / "access.svg"
    assert access(file, svg=True, place=place) == 0
    assert capsys.readouterr().out == ""
    assert access(svg=True, place=place) == 0
    assert capsys.readouterr().out == file.read_text("utf-8") == draw(server.vault().access())
    with pytest.raises(Usage, match="cannot write"):
        access(tmp_path / "missing" / "access.svg", svg=True, place=place)
    with pytest.raises(Usage, match="--svg only"):
        access(file, place=place)
    with pytest.raises(Usage, match="exclude each other"):
        access(svg=True, place=Place(url=server.url, as_json=True))
