"""A personal assistant of five agents: each knows what its work needs, and what one learns the others know at once.

pip install letta-client
export LETTA_BASE_URL=http://127.0.0.1:8283 LETTA_API_KEY=tally_…
python personal_assistant.py                               # steps are calls of tools: no model needed
python personal_assistant.py --model openai/gpt-4o-mini    # steps are messages that a model answers
"""

import argparse
import sys
from contextlib import ExitStack

from letta_client import APIConnectionError, APIStatusError, Letta, NotFoundError

WRITE_TO = "send_message_to_agent_async"

# [matrix]
BLOCKS = {
    "user_profile": "Ada lives in Lisbon.",
    "user_preferences": "Ada prefers short messages.",
    "interaction_history": "What was done for Ada:",
    "calendar_data": "Monday 09:00 dentist.",
    "financial_data": "Travel budget: 1,200 euros.",
}
MATRIX = {
    "coordinator": {
        "user_profile": "RW", "user_preferences": "RW", "interaction_history": "RW",
        "calendar_data": "R", "financial_data": "R", "coordination_notes": "RW",
    },
    "email": {
        "user_profile": "R", "user_preferences": "R", "interaction_history": "RW",
        "calendar_data": "R", "email_drafts": "RW",
    },
    "research": {
        "user_profile": "R", "user_preferences": "R", "interaction_history": "RW", "research_notes": "RW",
    },
    "calendar": {
        "user_profile": "R", "user_preferences": "R", "calendar_data": "RW", "scheduling_buffer": "RW",
    },
    "finance": {
        "user_profile": "R", "user_preferences": "R", "financial_data": "RW", "calculation_workspace": "RW",
    },
}  # fmt: skip
# [/matrix]


# [build]
def build(client, undo, model):
    """The blocks, and the agents with what the matrix gives each of them."""
    blocks, agents = {}, {}
    for label in dict.fromkeys([*BLOCKS, *(label for row in MATRIX.values() for label in row)]):
        blocks[label] = client.blocks.create(label=label, value=BLOCKS.get(label, f"{label}:"), limit=8000)
        undo.callback(client.blocks.delete, blocks[label].id)
    for name, row in MATRIX.items():
        tools = [WRITE_TO] if name == "coordinator" else None
        agents[name] = client.agents.create(name=name, model=model, tools=tools)
        undo.callback(client.agents.delete, agents[name].id)
        for label, rights in row.items():
            access = {"access": "write" if "W" in rights else "read"}
            client.agents.blocks.attach(blocks[label].id, agent_id=agents[name].id, extra_query=access)
    return blocks, agents
    # [/build]


def check(client, blocks, agents):
    """Every pair of the matrix both ways: by tool, by label, by id with the agent's own key, and in the prompt."""
    for name, agent in agents.items():
        policy = [{"type": "agent", "id": agent.id, "access": ["read_agent"]}]
        made = client.access_tokens.create(hostname="https://assistant.example", policy=policy)
        key, prompt = client.with_options(api_key=made.token), client.agents.recompile(agent.id)
        for label, block in blocks.items():
            rights = MATRIX[name].get(label, "")
            seen = {
                "in the prompt": BLOCKS.get(label, f"{label}:") in prompt,
                "by label": found(client.agents.blocks.retrieve, label, agent_id=agent.id),
                "by id": found(key.blocks.retrieve, block.id),
            }
            expect(set(seen.values()) == {"R" in rights}, f"{name} reads {label} ({rights or 'no'}): {seen}")
            line = {"label": label, "new_string": f"{name} was here."}
            run = client.agents.tools.run("memory_insert", agent_id=agent.id, args=line)
            expect((run.status == "success") == ("W" in rights), f"{name} writes {label}: {rights or 'no'}")


def found(read, *what, **whose):
    """Whether there is something to read. What was not granted answers like what never existed."""
    try:
        return bool(read(*what, **whose))
    except NotFoundError:
        return False


# [flow]
def main(client, undo, model):
    """Set up, prove the matrix, and plan a trip."""
    blocks, agents = build(client, undo, model)
    check(client, blocks, agents)
    show(MATRIX, list(blocks))

    def write(name, label, line):
        """A line into a block: by the agent's memory tool, or by asking its model to."""
        agent = agents[name].id
        if model:
            told = f"Add this line to your block {label}, with memory_insert: {line}"
            client.agents.messages.create(agent, input=told)
        else:
            client.agents.tools.run(
                "memory_insert", agent_id=agent, args={"label": label, "new_string": line}
            )

    def knows(name, line):
        """Whether the prompt of the agent's next step holds the line."""
        return line in client.agents.recompile(agents[name].id)

    write("coordinator", "user_preferences", "Ada travels by train.")
    done(all(knows(name, "by train") for name in agents), "a preference is told once, and all five know it")

    write("calendar", "calendar_data", "Friday 08:10 train to Porto.")
    done(
        knows("email", "train to Porto"),
        "what the calendar agent books, the email agent sees without a message",
    )
    write("email", "calendar_data", "Friday is free.")
    done(not knows("calendar", "Friday is free"), "and cannot change: it holds the calendar for reading")

    write("finance", "financial_data", "Spent: 86 euros.")
    done(knows("coordinator", "86 euros"), "the coordinator sees what the trip cost")
    done(not knows("research", "euros"), "the research agent knows nothing of money, so it cannot tell")

    write("email", "interaction_history", "Wrote to the hotel.")
    done(knows("research", "the hotel"), "research reads on where the email agent stopped")
    done(not knows("coordinator", "email_drafts:"), "the drafts are the email agent's own")

    told = {"message": "Please book Tuesday off.", "other_agent_id": agents["calendar"].id}
    sent = client.agents.tools.run(WRITE_TO, agent_id=agents["coordinator"].id, args=told)
    done(
        sent.status == "success",
        "and the coordinator, who only reads the calendar, writes to the agent that keeps it",
    )
    # [/flow]


def expect(true, what):
    """End the run, and clean up, unless `true`."""
    if not true:
        sys.exit(f"error: not as promised: {what}")


def done(true, what):
    """Say what was just seen to be so."""
    expect(true, what)
    print(f"ok: {what}")


def show(matrix, labels):
    """The matrix as a table."""
    width = max(map(len, matrix))
    print(" " * width, *labels, sep="  ")
    for name, row in matrix.items():
        print(f"{name:<{width}}", *(f"{row.get(label, '-'):<{len(label)}}" for label in labels), sep="  ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", help="a model that the server can call, such as openai/gpt-4o-mini")
    parser.add_argument("--keep", action="store_true", help="leave the blocks and agents where they are")
    options = parser.parse_args()
    with Letta() as letta:
        try:
            with ExitStack() as made:
                main(letta, made, options.model)
                if options.keep:
                    made.pop_all()
        except APIConnectionError:
            sys.exit(
                f"error: no server answers at {letta.base_url}\nhint: start one, and set LETTA_BASE_URL to it"
            )
        except APIStatusError as refused:  # what the server says is a line and a hint already
            said = refused.body if isinstance(refused.body, dict) and "error" in refused.body else {}
            hint = said.get("error", {}).get(
                "hint", "is this a Tallystone server, and LETTA_API_KEY your token?"
            )
            sys.exit(f"error: {said.get('detail', refused)}\nhint: {hint}")
