// Support tiers: everybody reads the policies, fewer read how to escalate, one keeps the score.
//
//   npm install @letta-ai/letta-client@1.12.1
//   export LETTA_BASE_URL=http://127.0.0.1:8283 LETTA_API_KEY=tally_…
//   node support_tiers.ts                                 # Node.js 22.18 or newer reads TypeScript itself
//   node support_tiers.ts --model openai/gpt-4o-mini      # steps are messages that a model answers

import Letta, { APIConnectionError, APIError, NotFoundError, PermissionDeniedError } from "@letta-ai/letta-client";
import { parseArgs } from "node:util";

type Rights = "R" | "RW";

const MATRIX: Record<string, Partial<Record<string, Rights>>> = {
  tier1_a: { company_policies: "R" },
  tier1_b: { company_policies: "R" },
  tier2: { company_policies: "R", escalation_procedures: "R" },
  tier3: { company_policies: "R", escalation_procedures: "R", team_metrics: "RW" },
};
const BLOCKS: Record<string, string> = {
  company_policies: "Refunds within 30 days. Standard customers get an answer within 24 hours.",
  escalation_procedures: "Over $500 goes to tier 2, which decides up to $1,000. Over that, tier 3.",
  team_metrics: "Tickets handled today:",
};

class NotAsPromised extends Error {}

const options = parseArgs({ options: { model: { type: "string" }, keep: { type: "boolean", default: false } } }).values;
const client = new Letta();
const undo: Array<() => Promise<unknown>> = [];
const blocks: Record<string, string> = {};
const agents: Record<string, string> = {};

/** The blocks, and the agents with what the matrix gives each of them. */
async function build(): Promise<void> {
  for (const [label, value] of Object.entries(BLOCKS)) {
    const { id } = await client.blocks.create({ label, value, limit: 5000 });
    undo.push(() => client.blocks.delete(id));
    blocks[label] = id;
  }
  for (const [name, row] of Object.entries(MATRIX)) {
    const { id } = await client.agents.create({ name, model: options.model });
    undo.push(() => client.agents.delete(id));
    agents[name] = id;
    for (const [label, rights] of Object.entries(row)) {
      const query = { access: rights === "RW" ? "write" : "read" }; // the same block, another key for each
      await client.agents.blocks.attach(blocks[label], { agent_id: id }, { query });
    }
  }
}

/** A client with a key of the agent's own, as a process that runs only this agent would have it. */
async function own(agent: string): Promise<Letta> {
  const { token } = await client.accessTokens.create({
    hostname: "https://support.example",
    policy: [{ type: "agent", id: agent, access: ["read_agent", "write_agent"] }],
  });
  return client.withOptions({ apiKey: token });
}

/** Every pair of the matrix both ways: by tool, in the prompt, by label, and by id with the agent's own key. */
async function check(): Promise<void> {
  for (const [name, agent] of Object.entries(agents)) {
    const key = await own(agent);
    const prompt = await client.agents.recompile(agent);
    for (const [label, id] of Object.entries(blocks)) {
      const rights = MATRIX[name][label] ?? "no";
      const args = { label, new_string: `${name} was here.` };
      const run = await client.agents.tools.run("memory_insert", { agent_id: agent, args });
      expect((run.status === "success") === (rights === "RW"), `${name} writes ${label}: ${rights}`);
      const seen = [
        prompt.includes(BLOCKS[label]),
        await found(client.agents.blocks.retrieve(label, { agent_id: agent })),
        await found(key.blocks.retrieve(id)),
      ];
      expect(seen.every((there) => there === (rights !== "no")), `${name} reads ${label}: ${rights}`);
    }
  }
}

/** Whether there is something to read. What was not granted answers like what never existed. */
async function found(read: PromiseLike<unknown>): Promise<boolean> {
  try {
    return Boolean(await read);
  } catch (error) {
    if (error instanceof NotFoundError) return false;
    throw error;
  }
}

/** A line into a block: by the agent's memory tool, or by asking its model to. */
async function write(agent: string, label: string, line: string): Promise<void> {
  if (options.model) {
    const input = `Add this line to your block ${label}, with memory_insert: ${line}`;
    await client.agents.messages.create(agent, { input });
  } else {
    await client.agents.tools.run("memory_insert", { agent_id: agent, args: { label, new_string: line } });
  }
}

/** Set up, prove the matrix, and go through a day. */
async function main(): Promise<void> {
  await build();
  await check();
  console.table(MATRIX);

  await write(agents.tier1_a, "company_policies", "Refunds within 90 days.");
  const policies = (await client.blocks.retrieve(blocks.company_policies)).value;
  done(!policies.includes("90 days"), "tier 1 cannot change a policy, whatever it is told");

  await write(agents.tier3, "team_metrics", "tier1_a: 5 tickets");
  const metrics = (await client.blocks.retrieve(blocks.team_metrics)).value;
  done(metrics.includes("tier1_a: 5 tickets"), "the supervisor logs metrics");

  await client.blocks.update(blocks.company_policies, { value: "Refunds within 45 days." });
  const prompts = await Promise.all(Object.values(agents).map((agent) => client.agents.recompile(agent)));
  done(prompts.every((prompt) => prompt.includes("45 days")), "the owner changes a policy: every tier knows at once");

  const tier1 = await own(agents.tier1_a);
  const refused = await tier1.blocks.update(blocks.company_policies, { value: "Everything is free!" }).then(
    () => false,
    (error: unknown) => error instanceof PermissionDeniedError,
  );
  done(refused, "with its own key, too, tier 1 reads the policies and no more");
}

function expect(held: boolean, what: string): void {
  if (!held) throw new NotAsPromised(`not as promised: ${what}`);
}

function done(held: boolean, what: string): void {
  expect(held, what);
  console.log(`ok: ${what}`);
}

/** An error as one line and a hint. */
function told(error: unknown): string {
  if (error instanceof APIConnectionError) {
    return `error: no server answers at ${client.baseURL}\nhint: start one, and set LETTA_BASE_URL to it`;
  }
  if (error instanceof APIError && error.status) {
    const said = error.error as { detail?: string; error?: { hint?: string } } | undefined;
    const hint = said?.error?.hint ?? "is this a Tallystone server, and LETTA_API_KEY your token?";
    return `error: ${said?.detail ?? error.message}\nhint: ${hint}`;
  }
  if (error instanceof NotAsPromised) return `error: ${error.message}`;
  throw error;
}

try {
  try {
    await main();
  } finally {
    if (!options.keep) for (const step of undo.reverse()) await step();
  }
} catch (error) {
  console.error(told(error));
  process.exitCode = 1;
}
