// One agent, driven with the published client: what create, stream and list give, as JSON on stdout.
import Letta from "@letta-ai/letta-client";
import { text } from "node:stream/consumers";

const { url, token, model } = JSON.parse(await text(process.stdin));
const client = new Letta({ apiKey: token, baseURL: url, maxRetries: 0 });
const all = async (page) => {
  const found = [];
  for await (const item of page) found.push(item);
  return found;
};

const agent = await client.agents.create({
  name: "from node",
  model,
  memory_blocks: [{ label: "human", value: "Name: unknown" }],
});
const created = await client.agents.messages.create(agent.id, { input: "I am Ada." });
const stream = await client.agents.messages.create(agent.id, { input: "again", streaming: true, stream_tokens: true });
const streamed = await all(stream);
const deprecated = await all(await client.agents.messages.stream(agent.id, { input: "once more" }));
const listed = await all(await client.agents.messages.list(agent.id, { order: "asc", limit: 2 }));
const block = await client.agents.blocks.retrieve("human", { agent_id: agent.id });
const runs = await all(await client.runs.list({ agent_id: agent.id }));
let refused = null;
try {
  await client.agents.messages.create(agent.id, { input: "x", override_model: "nobody/x" });
} catch (error) {
  refused = { status: error.status, code: error.error?.error?.code };
}
console.log(JSON.stringify({ agent: agent.id, created, streamed, deprecated, listed, block, runs, refused }));
