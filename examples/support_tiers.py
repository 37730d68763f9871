"""Support tiers: everybody reads the policies, fewer read how to escalate, one keeps the score.

pip install letta-client
export LETTA_BASE_URL=http://127.0.0.1:8283 LETTA_API_KEY=tally_…
python support_tiers.py                               # steps are calls of tools: no model needed
python support_tiers.py --model openai/gpt-4o-mini    # steps are messages that a model answers
"""

import argparse
import sys
from contextlib import ExitStack

from letta_client import APIConnectionError, APIStatusError, Letta, NotFoundError, PermissionDeniedError

# [matrix]
MATRIX = {
    "tier1_a": {"company_policies": "R"},
    "tier1_b": {"company_policies": "R"},
    "tier2": {"company_policies": "R", "escalation_procedures": "R"},
    "tier3": {"company_policies": "R", "escalation_procedures": "R", "team_metrics": "RW"},
}
BLOCKS = {
    "company_policies": "Refunds within 30 days. Standard customers get an answer within 24 hours.",
    "escalation_procedures": "Over $500 goes to tier 2, which decides up to $1,000. Over that, tier 3.",
    "team_metrics": "Tickets handled today:",
}
# [/matrix]


# [build]
def build(client, undo, model):
    """The blocks, and the agents with what the matrix gives each of them."""
    blocks, agents = {}, {}
    for label, value in BLOCKS.items():
        blocks[label] = client.blocks.create(label=label, value=value, limit=5000)
        undo.callback(client.blocks.delete, blocks[label].id)
    for name, row in MATRIX.items():
        agents[name] = client.agents.create(name=name, model=model)
        undo.callback(client.agents.delete, agents[name].id)
        for label, rights in row.items():
            access = {"access": "write" if "W" in rights else "read"}  # the same block, another key for each
            client.agents.blocks.attach(blocks[label].id, agent_id=agents[name].id, extra_query=access)
    return blocks, agents
    # [/build]


def own(client, agent):
    """A client with a key of the agent's own, as a process that runs only this agent would have it."""
    policy = [{"type": "agent", "id": agent.id, "access": ["read_agent", "write_agent"]}]
    made = client.access_tokens.create(hostname="https://support.example", policy=policy)
    return client.with_options(api_key=made.token)


# [check]
def check(client, blocks, agents):
    """Every pair of the matrix both ways: by tool, in the prompt, by label, and by id with the agent's own key."""
    for name, agent in agents.items():
        prompt, key = client.agents.recompile(agent.id), own(client, agent)
        for label, block in blocks.items():
            rights = MATRIX[name].get(label, "")
            line = {"label": label, "new_string": f"{name} was here."}
            run = client.agents.tools.run("memory_insert", agent_id=agent.id, args=line)
            seen = {
                "in the prompt": BLOCKS[label] in prompt,
                "by label": found(client.agents.blocks.retrieve, label, agent_id=agent.id),
                "by id": found(key.blocks.retrieve, block.id),
            }
            expect((run.status == "success") == ("W" in rights), f"{name} writes {label}: {rights or 'no'}")
            for way, there in seen.items():
                expect(there == ("R" in rights), f"{name} reads {label} {way}: {rights or 'no'}")
    # [/check]


def found(read, *what, **whose):
    """Whether there is something to read. What was not granted answers like what never existed."""
    try:
        return bool(read(*what, **whose))
    except NotFoundError:
        return False


def write(client, agent, label, line, model):
    """A line into a block: by the agent's memory tool, or by asking its model to."""
    if model:
        told = f"Add this line to your block {label}, with memory_insert: {line}"
        client.agents.messages.create(agent.id, input=told)
        return
    client.agents.tools.run("memory_insert", agent_id=agent.id, args={"label": label, "new_string": line})


# [flow]
def main(client, undo, model):
    """Set up, prove the matrix, and go through a day."""
    blocks, agents = build(client, undo, model)
    check(client, blocks, agents)
    show(MATRIX, list(BLOCKS))

    write(client, agents["tier1_a"], "company_policies", "Refunds within 90 days.", model)
    policies = client.blocks.retrieve(blocks["company_policies"].id).value
    done("90 days" not in policies, "tier 1 cannot change a policy, whatever it is told")

    write(client, agents["tier3"], "team_metrics", "tier1_a: 5 tickets", model)
    metrics = client.blocks.retrieve(blocks["team_metrics"].id).value
    done("tier1_a: 5 tickets" in metrics, "the supervisor logs metrics")

    client.blocks.update(blocks["company_policies"].id, value="Refunds within 45 days.")
    prompts = [client.agents.recompile(agent.id) for agent in agents.values()]
    done(
        all("45 days" in prompt for prompt in prompts), "the owner changes a policy: every tier knows at once"
    )

    tier1 = own(client, agents["tier1_a"])
    try:
        tier1.blocks.update(blocks["company_policies"].id, value="Everything is free!")
        expect(False, "tier 1 is refused")
    except PermissionDeniedError:
        done(True, "with its own key, too, tier 1 reads the policies and no more")
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
