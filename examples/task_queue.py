"""A task queue: workers claim tasks from one shared block, and each task is claimed once, however many try.

pip install letta-client
export LETTA_BASE_URL=http://127.0.0.1:8283 LETTA_API_KEY=tally_…
python task_queue.py                                  # steps are calls of tools: no model needed
python task_queue.py --workers 12 --tasks 60
python task_queue.py --model openai/gpt-4o-mini       # steps are messages that a model answers
"""

import argparse
import random
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from letta_client import APIConnectionError, APIStatusError, Letta, NotFoundError


# [matrix]
def plan(workers):
    """Who reaches what: the team's blocks, the supervisor's metrics, a log for each worker."""
    team = {"task_queue": "RW", "completed_work": "RW"}
    matrix = {"supervisor": team | {"team_metrics": "RW"}}
    for number in range(1, workers + 1):
        matrix[f"worker_{number}"] = team | {f"worker_{number}_log": "RW"}
    return matrix
    # [/matrix]


# [build]
def build(client, undo, matrix, tasks, model):
    """The blocks, the agents, and for each agent a key of its own: a worker's process holds that and nothing else."""
    queue = "".join(f"\nTASK-{number:03} | pending" for number in range(1, tasks + 1))
    blocks, agents, keys = {}, {}, {}
    for label in dict.fromkeys(label for row in matrix.values() for label in row):
        value = f"{label}:" + (queue if label == "task_queue" else "")
        blocks[label] = client.blocks.create(label=label, value=value)
        undo.callback(client.blocks.delete, blocks[label].id)
    for name, row in matrix.items():
        ids = [blocks[label].id for label in row]  # block_ids give read and write
        agents[name] = client.agents.create(name=name, block_ids=ids, model=model)
        undo.callback(client.agents.delete, agents[name].id)
        policy = [{"type": "agent", "id": agents[name].id, "access": ["read_agent", "write_agent"]}]
        made = client.access_tokens.create(hostname="https://workers.example", policy=policy)
        keys[name] = client.with_options(api_key=made.token)
    return blocks, agents, keys
    # [/build]


# [work]
def work(key, agent):
    """What a worker does until nothing is pending. Gives the tasks it claimed, and the tool's words when it lost."""
    claimed, lost = [], []
    while pending := open_tasks(key, agent):
        task = random.choice(pending)  # if all took the first, all but one would come too late
        mine = f"in progress: {agent.name}"
        claim = move(key, agent, task, "pending", mine)
        if claim.status == "error":
            lost.append(claim.stderr[0])  # another was faster; this says what the block now reads
            continue
        claimed.append(task)
        run(key, agent, "memory_insert", "completed_work", new_string=f"{task} by {agent.name}: all is well")
        run(key, agent, "memory_insert", f"{agent.name}_log", new_string=f"did {task}")
        move(key, agent, task, mine, f"done: {agent.name}")
    return claimed, lost


def move(key, agent, task, old, new):
    """The task's line from one state to another. If it is not in the old one any more, the tool answers an error."""
    change = {"old_string": f"{task} | {old}", "new_string": f"{task} | {new}"}
    return run(key, agent, "memory_replace", "task_queue", **change)


def run(key, agent, tool, label, **arguments):
    """A memory tool, as the agent. Its edit is made on the block as it is at that moment, or not at all."""
    return key.agents.tools.run(tool, agent_id=agent.id, args={"label": label, **arguments})


def open_tasks(key, agent):
    """The tasks that nobody has claimed yet."""
    queue = key.agents.blocks.retrieve("task_queue", agent_id=agent.id).value
    return re.findall(r"^(TASK-\d+) \| pending$", queue, re.MULTILINE)
    # [/work]


TOLD = """Claim one task: in task_queue, memory_replace `TASK-nnn | pending` by `TASK-nnn | in progress: {0}`. If that
fails, another worker was faster: try the next one. Then memory_insert `TASK-nnn by {0}: <finding>` into completed_work,
and memory_replace `TASK-nnn | in progress: {0}` by `TASK-nnn | done: {0}`. If no task is pending, say so."""


def ask(key, agent):
    """The same by a model: what it believes to have claimed counts for nothing, what stands in the block does."""
    while open_tasks(key, agent):
        key.agents.messages.create(agent.id, input=TOLD.format(agent.name))
    queue = key.agents.blocks.retrieve("task_queue", agent_id=agent.id).value
    return re.findall(rf"^(TASK-\d+) \| done: {agent.name}$", queue, re.MULTILINE), []


# [flow]
def main(client, undo, workers, tasks, model):
    """Set up, let all workers work at once, and count."""
    matrix = plan(workers)
    blocks, agents, keys = build(client, undo, matrix, tasks, model)
    show(plan(min(workers, 3)))  # the others are alike
    names = [name for name in matrix if name != "supervisor"]
    with ThreadPoolExecutor(workers) as team:
        results = list(team.map(lambda name: (ask if model else work)(keys[name], agents[name]), names))

    every = {f"TASK-{number:03}" for number in range(1, tasks + 1)}
    claims = Counter(task for claimed, _ in results for task in claimed)
    done(claims == Counter(every), f"{tasks} tasks, {workers} workers: each task was claimed once")
    queue = client.blocks.retrieve(blocks["task_queue"].id).value
    done(Counter(re.findall(r"^(TASK-\d+) \| done: ", queue, re.M)) == claims, "each was completed once")
    findings = client.blocks.retrieve(blocks["completed_work"].id).value
    done(Counter(re.findall(r"^(TASK-\d+) by ", findings, re.M)) == claims, "all findings are there")
    lost = [words for _, losses in results for words in losses]
    print(
        f"ok: {len(lost)} times another worker was faster",
        *[f"as: {said[:400]}" for said in lost[:1]],
        sep="\n",
    )

    for name, agent in agents.items():
        prompt = client.agents.recompile(agent.id)
        for label, block in blocks.items():
            wrote = (
                run(client, agent, "memory_insert", label, new_string=f"{name} was here").status == "success"
            )
            seen = {"writes": wrote, "reads": found(keys[name], block), "is shown": f"{label}:" in prompt}
            expect(set(seen.values()) == {label in matrix[name]}, f"{name} and {label}: {seen}")
    done(True, "nobody reads or writes another's log, and only the supervisor the metrics")
    # [/flow]


def found(key, block):
    """Whether the block is there for whoever has the key. What was not granted answers like what never existed."""
    try:
        return bool(key.blocks.retrieve(block.id))
    except NotFoundError:
        return False


def expect(true, what):
    """End the run, and clean up, unless `true`."""
    if not true:
        sys.exit(f"error: not as promised: {what}")


def done(true, what):
    """Say what was just seen to be so."""
    expect(true, what)
    print(f"ok: {what}")


def show(matrix):
    """The matrix as a table."""
    labels = list(dict.fromkeys(label for row in matrix.values() for label in row))
    width = max(map(len, matrix))
    print(" " * width, *labels, sep="  ")
    for name, row in matrix.items():
        print(f"{name:<{width}}", *(f"{row.get(label, '-'):<{len(label)}}" for label in labels), sep="  ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=9)
    parser.add_argument("--model", help="a model that the server can call, such as openai/gpt-4o-mini")
    parser.add_argument("--keep", action="store_true", help="leave the blocks and agents where they are")
    options = parser.parse_args()
    with Letta() as letta:
        try:
            with ExitStack() as made:
                main(letta, made, options.workers, options.tasks, options.model)
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
