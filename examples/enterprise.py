"""An enterprise: departments are roles, and who joins a role reaches what the role was given, until leaving it.

pip install letta-client
export LETTA_BASE_URL=http://127.0.0.1:8283 LETTA_API_KEY=tally_…
python enterprise.py                               # steps are calls of tools: no model needed
python enterprise.py --users                       # each department a user, whose blocks nobody else can open
python enterprise.py --model openai/gpt-4o-mini    # steps are messages that a model answers
"""

import argparse
import secrets
import sys
from contextlib import ExitStack

from letta_client import APIConnectionError, APIStatusError, Letta, NotFoundError

# [matrix]
DEPARTMENTS = {
    "office": ["ceo"],
    "sales": ["sales_director", "sales_rep_1", "sales_rep_2"],
    "engineering": ["eng_director", "engineer_1", "engineer_2"],
    "hr": ["hr_director", "hr_rep_1"],
}
AGENTS = {agent: department for department, agents in DEPARTMENTS.items() for agent in agents}
ROLES = {
    "everyone": list(AGENTS),
    "directors": ["ceo", "sales_director", "eng_director", "hr_director"],
    **{department: agents for department, agents in DEPARTMENTS.items() if department != "office"},
}
BLOCKS = {  # label: (whose it is, to whom it is given, to do what, what it says)
    "company_mission": ("office", "everyone", "read", "We make tools that last."),
    "company_policies": ("office", "everyone", "read", "Travel is booked a week ahead."),
    "sales_knowledge": ("sales", "sales", "write", "Wins this quarter:"),
    "engineering_specs": ("engineering", "engineering", "write", "The API is versioned."),
    "hr_employee_data": ("hr", "hr", "write", "On a performance plan: J. Doe."),
    "cross_dept_projects": ("office", "directors", "write", "Projects across departments:"),
    "executive_dashboard": ("office", "ceo", "write", "Runway: 30 months."),
    **{f"{agent}_notes": (home, agent, "write", f"Notes of {agent}:") for agent, home in AGENTS.items()},
}
MATRIX = {
    agent: {
        label: "RW" if right == "write" else "R"
        for label, (_, whom, right, _) in BLOCKS.items()
        if agent in ROLES.get(whom, [whom])
    }
    for agent in AGENTS
}
# [/matrix]


# [build]
def build(clients, undo, company, model):
    """Agents, roles with their members, blocks with their one grant each. `clients` says who acts for a department."""
    ids, blocks = {}, {}
    for agent, home in AGENTS.items():
        ids[agent] = clients[home].agents.create(name=agent, model=model).id
        undo.callback(clients[home].agents.delete, ids[agent])
    for role, members in ROLES.items():
        owner = clients.get(role, clients["office"])
        ids[role] = owner.post("/v1/roles", cast_to=object, body={"name": f"{company}-{role}"})["id"]
        undo.callback(owner.delete, f"/v1/roles/{ids[role]}", cast_to=object)
        agents = {"members": [ids[agent] for agent in members]}
        owner.post(f"/v1/roles/{ids[role]}/members", cast_to=object, body=agents)
        for other in [clients[AGENTS[agent]] for agent in members]:
            if other is not owner:  # another user's agent joins when that user accepts
                other.post(f"/v1/offers/{ids[role]}/accept", cast_to=object)
    for label, (home, whom, right, value) in BLOCKS.items():
        blocks[label] = clients[home].blocks.create(label=label, value=value, limit=12000).id
        undo.callback(clients[home].blocks.delete, blocks[label])
        grant = {"principal": ids[whom], "can": right}
        clients[home].post(f"/v1/blocks/{blocks[label]}/grants", cast_to=object, body=grant)
    return ids, blocks


def users(root, undo, company):
    """Each department as a user of its own: {department: its client}. Only the workspace's first user may add users."""
    clients = {"office": root}
    for department in DEPARTMENTS.keys() - clients.keys():
        made = root.post("/v1/users", cast_to=object, body={"name": f"{company}-{department}"})
        undo.callback(
            root.post, f"/v1/users/{made['principal']}/suspend", cast_to=object
        )  # users are never deleted
        clients[department] = root.with_options(api_key=made["token"])
    return clients
    # [/build]


def check(clients, ids, blocks):
    """Every pair of the matrix both ways: by id with the agent's own key, in the prompt, by label, and by tool."""
    for name, home in AGENTS.items():
        client, agent = clients[home], ids[name]
        policy = [{"type": "agent", "id": agent, "access": ["read_agent"]}]
        made = client.access_tokens.create(hostname="https://enterprise.example", policy=policy)
        key, prompt = client.with_options(api_key=made.token), client.agents.recompile(agent)
        for label, block in blocks.items():
            rights = MATRIX[name].get(label, "")
            seen = {"by id": found(key.blocks.retrieve, block), "in the prompt": BLOCKS[label][3] in prompt}
            if rights or not label.endswith("_notes"):  # of all those notes, the two are enough
                seen["by label"] = found(client.agents.blocks.retrieve, label, agent_id=agent)
                line = {"label": label, "new_string": f"{name} was here."}
                run = client.agents.tools.run("memory_insert", agent_id=agent, args=line)
                expect(
                    (run.status == "success") == ("W" in rights), f"{name} writes {label}: {rights or 'no'}"
                )
            expect(set(seen.values()) == {"R" in rights}, f"{name} reads {label} ({rights or 'no'}): {seen}")


def found(read, *what, **whose):
    """Whether there is something to read. What was not granted answers like what never existed."""
    try:
        return bool(read(*what, **whose))
    except NotFoundError:
        return False


# [flow]
def main(root, undo, company, as_users, model):
    """Set up, prove the matrix, and go through a quarter."""
    clients = users(root, undo, company) if as_users else dict.fromkeys(DEPARTMENTS, root)
    ids, blocks = build(clients, undo, company, model)
    check(clients, ids, blocks)
    show(MATRIX, [label for label in BLOCKS if not label.endswith("_notes")])

    def write(name, label, line):
        """A line into a block: by the agent's memory tool, or by asking its model to."""
        client, agent = clients[AGENTS[name]], ids[name]
        if model:
            told = f"Add this line to your block {label}, with memory_insert: {line}"
            client.agents.messages.create(agent, input=told)
        else:
            client.agents.tools.run(
                "memory_insert", agent_id=agent, args={"label": label, "new_string": line}
            )

    def knows(name, line):
        """Whether the prompt of the agent's next step holds the line."""
        return line in clients[AGENTS[name]].agents.recompile(ids[name])

    write("sales_director", "cross_dept_projects", "Sales needs single sign-on.")
    done(knows("eng_director", "single sign-on"), "directors share projects")
    done(not knows("engineer_1", "single sign-on"), "and nobody below them reads along")
    write("sales_rep_1", "sales_knowledge", "Won: 300,000 from Initech.")
    done(knows("sales_director", "Initech"), "a rep's win is the whole sales team's")
    write("sales_director", "hr_employee_data", "On a performance plan: nobody.")
    done(
        not knows("sales_director", "performance plan"), "sales knows nothing of HR's file, so it cannot tell"
    )
    done(knows("hr_rep_1", "J. Doe") and not knows("hr_rep_1", "nobody"), "nor change it")
    if as_users:
        take = clients["sales"].agents.blocks.attach
        taken = found(take, blocks["hr_employee_data"], agent_id=ids["sales_director"])
        done(not taken, "the user sales cannot give its agents what it was not given")
        done(
            not found(root.blocks.retrieve, blocks["hr_employee_data"]),
            "nor can the workspace's first user open it",
        )
    root.blocks.update(blocks["company_mission"], value="We make tools that mend.")
    done(all(knows(name, "that mend") for name in AGENTS), "the mission changes for all nine at once")
    members, rep = f"/v1/roles/{ids['sales']}/members", ids["sales_rep_1"]
    clients["sales"].delete(f"{members}/{rep}", cast_to=object)
    done(not knows("sales_rep_1", "Initech"), "who leaves a department leaves what it knows")
    done(knows("sales_rep_2", "Initech"), "and the others read on, with new keys")
    clients["sales"].post(members, cast_to=object, body={"members": [rep]})
    done(knows("sales_rep_1", "Initech"), "who comes back finds it again")
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
    parser.add_argument(
        "--company", default=f"acme-{secrets.token_hex(2)}", help="what its roles' names begin with"
    )
    parser.add_argument("--users", action="store_true", help="make each department a user of its own")
    parser.add_argument("--model", help="a model that the server can call, such as openai/gpt-4o-mini")
    parser.add_argument("--keep", action="store_true", help="leave the blocks and agents where they are")
    options = parser.parse_args()
    with Letta() as letta:
        try:
            with ExitStack() as made:
                main(letta, made, options.company, options.users, options.model)
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
