"""The memory tools as pure text edits, and the patch language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystone.letta import memory_tools, patches
from tallystone.letta.agent_tools import SENDING
from tallystone.letta.letters import ASK
from tallystone.letta.memory_tools import EDITS, LINE_NOTE, ToolError, check_arguments, guard, path_label
from tallystone.letta.recall_tools import RECALL
from tallystone.letta.tools import BASE_TOOLS, BY_ID, BY_NAME, CATALOGUE

WIRE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors/wire/memory-tools.json").read_text("utf-8")
)
TEXT = st.text(st.characters(exclude_characters="\0\r"), max_size=60)


def edit(tool: str, value: str, **arguments: Any) -> str:
    return EDITS[tool](value, "notes", arguments)


def fails(tool: str, value: str, **arguments: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        edit(tool, value, **arguments)
    return caught.value


# -- one block --------------------------------------------------------------------------------------------------


@given(TEXT, TEXT)
def test_append_adds_one_line_even_to_an_empty_block(value: str, content: str) -> None:
    assert edit("core_memory_append", value, content=content) == value + "\n" + content


def test_core_replace_changes_every_occurrence_and_can_delete() -> None:
    assert edit("core_memory_replace", "a b a", old_content="a", new_content="c") == "c b c"
    assert edit("core_memory_replace", "a b a", old_content="a", new_content="") == " b "


@pytest.mark.parametrize("old", ["", "z"])
def test_core_replace_of_what_is_not_there_says_what_is(old: str) -> None:
    error = fails("core_memory_replace", "now", old_content=old, new_content="x")
    assert error.kind == "ValueError"
    assert "'now'" in error.text


@pytest.mark.parametrize(
    ("line", "expected"),
    [(0, "new\na\nb"), (1, "a\nnew\nb"), (2, "a\nb\nnew"), (-1, "a\nb\nnew"), (None, "a\nb\nnew")],
)
def test_insert_goes_after_the_line(line: int | None, expected: str) -> None:
    arguments = {} if line is None else {"insert_line": line}
    assert edit("memory_insert", "a\nb", new_string="new", **arguments) == expected


@pytest.mark.parametrize("line", [3, 99, -2])
def test_insert_outside_of_the_block_names_the_range(line: int) -> None:
    assert "[0, 2]" in fails("memory_insert", "a\nb", new_string="x", insert_line=line).text


def test_tabs_become_spaces_where_lines_are_compared() -> None:
    assert edit("memory_insert", "a\tb", new_string="c\td") == "a       b\nc       d"
    assert edit("memory_replace", "a\tb", old_string="a\tb", new_string="\t") == " " * 8


def test_replace_wants_exactly_one_occurrence() -> None:
    assert edit("memory_replace", "one two", old_string="two", new_string="three") == "one three"
    assert "does not appear" in fails("memory_replace", "one", old_string="two", new_string="").text
    assert "does not appear" in fails("memory_replace", "one", old_string="", new_string="x").text
    many = fails("memory_replace", "x\na\na b a\n", old_string="a", new_string="b")
    assert "lines [2, 3]" in many.text


@given(TEXT, TEXT)
def test_rethink_keeps_nothing(value: str, new: str) -> None:
    assert edit("memory_rethink", value, new_memory=new) == new


# -- arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1→ x", "  12→x", "a\n\t3→\tb", f"x\n{LINE_NOTE}\n"])
def test_text_copied_with_its_display_is_refused(text: str) -> None:
    with pytest.raises(ToolError) as caught:
        guard({"label": "notes", "old_string": text})
    assert caught.value.kind == "ValueError"
    assert "old_string" in caught.value.text


@pytest.mark.parametrize("text", ["step 1→ step 2", "1 → x", "→", ""])
def test_arrows_in_the_text_itself_are_fine(text: str) -> None:
    guard({"content": text, "insert_line": 3})


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"label": "a"}, "content"),
        ({"label": "a", "content": 3}, "content"),
        ({"label": "a", "content": None}, "content"),
        ({"label": "a", "content": "x", "more": 1}, "more"),
    ],
)
def test_wrong_arguments_are_a_type_error_that_names_them(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ToolError) as caught:
        check_arguments(BY_NAME["core_memory_append"].json_schema, arguments)
    assert caught.value.kind == "TypeError"
    assert named in caught.value.text


def test_true_is_no_line_number() -> None:
    with pytest.raises(ToolError):
        check_arguments(
            BY_NAME["memory_insert"].json_schema, {"label": "a", "new_string": "b", "insert_line": True}
        )


def test_nuls_and_null_options_are_dropped() -> None:
    schema = BY_NAME["memory_insert"].json_schema
    known = check_arguments(schema, {"label": "a\0", "new_string": "b", "insert_line": None})
    assert known == {"label": "a", "new_string": "b"}


def test_errors_are_wrapped_and_cut() -> None:
    assert (
        ToolError("ValueError", "no").wrapped("memory") == "Error executing function memory: ValueError: no"
    )
    assert len(ToolError("ValueError", "x" * 5000).wrapped("memory")) == memory_tools.MAX_ERROR


def test_paths_name_labels_which_may_hold_slashes() -> None:
    assert path_label("/memories/system/human") == "system/human"
    assert path_label("notes") == path_label("/memories/notes") == path_label("/notes") == "notes"
    for path in ("", "/", "/memories/"):
        with pytest.raises(ToolError):
            path_label(path)


# -- patches ----------------------------------------------------------------------------------------------------


def patched(value: str, patch: str) -> str:
    return patches.apply(value, "notes", patch.split("\n"))


def test_a_hunk_replaces_the_lines_that_it_names() -> None:
    assert patched("a\nb\nc", " a\n-b\n+B\n c\n") == "a\nB\nc"
    assert patched("a\nb\nc", "@@\n-a\n@@\n-c\n+C") == "b\nC"


def test_lines_of_plus_alone_are_appended() -> None:
    assert patched("a", "+b\n+c") == "a\nb\nc"
    assert patched("", "+b") == "b"


@pytest.mark.parametrize(
    ("value", "patch", "said"),
    [
        ("a\na", "-a\n+b", "2 times"),
        ("a", "-z", "do not stand"),
        ("a", "?z", "begins with none"),
        ("a", "", "changes nothing"),
    ],
)
def test_a_patch_that_fits_nowhere_or_twice_changes_nothing(value: str, patch: str, said: str) -> None:
    with pytest.raises(ToolError) as caught:
        patched(value, patch)
    assert said in caught.value.text


def test_a_patch_with_sections_is_parsed() -> None:
    steps = patches.steps(
        "*** Begin Patch\n*** Add Block: new\n+one\n+two\n\n*** Update Block: old\n*** Move to: older\n-a\n+b\n"
        "*** Delete Block: gone\n*** End Patch"
    )
    assert [(step.action, step.label, step.move) for step in steps] == [
        ("add", "new", None),
        ("update", "old", "older"),
        ("delete", "gone", None),
    ]
    assert patches.added_value(steps[0]) == "one\ntwo"


@pytest.mark.parametrize(
    "patch",
    ["x\n*** Add Block: a", "*** Add Block:\n+x", "*** Add Block: a\n*** Move to: b", "*** Update Block: "],
)
def test_sections_without_sense_are_refused(patch: str) -> None:
    with pytest.raises(ToolError):
        patches.steps(patch)


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=6), st.integers(0, 5), TEXT)
def test_a_unique_line_is_always_found(lines: list[str], at: int, new: str) -> None:
    new = new.replace("\n", " ")
    lines = [*lines[:at], "unique", *lines[at:]]
    result = patched("\n".join(lines), f"-unique\n+{new}")
    assert result.split("\n") == [new if line == "unique" else line for line in lines]


# -- the catalogue ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WIRE)
def test_schemas_are_those_of_the_wire(name: str) -> None:
    tool = BY_NAME[name]
    assert tool.tool_type == WIRE[name]["tool_type"]
    assert tool.json_schema["name"] == name
    assert tool.json_schema["parameters"] == WIRE[name]["json_schema"]["parameters"]


def test_ids_are_uuid_shaped_and_never_change() -> None:
    assert len(BY_ID) == len(BY_NAME) == len(CATALOGUE)
    assert BY_NAME["core_memory_append"].id == "tool-8a86aa78-e6bb-4232-9d58-5c4e7a4425c0"
    for tool_id in BY_ID:
        head, _, rest = tool_id.partition("-")
        assert head == "tool"
        assert rest[14] == "4" and rest[19] in "89ab"


def test_base_tools_exist() -> None:
    assert {name for names in BASE_TOOLS.values() for name in names} <= set(BY_NAME)


@pytest.mark.parametrize("tool", [tool for tool in CATALOGUE if tool.served], ids=lambda tool: tool.name)
def test_served_tools_are_done_here(tool: Any) -> None:
    elsewhere = {"memory", "memory_apply_patch", "memory_finish_edits", "send_message", ASK}
    assert any(tool.name in served for served in (EDITS, RECALL, SENDING, elsewhere))
