// Runs age-encryption on a list of requests: JSON on stdin, JSON on stdout, bytes in base64.
// An outcome is {"ok": text} or {"error": message}, so that one process can show refusals too.
import { text } from "node:stream/consumers";
import { Decrypter, Encrypter, generateHybridIdentity, identityToRecipient } from "age-encryption";

const bytes = (encoded) => Buffer.from(encoded, "base64");
const base64 = (raw) => Buffer.from(raw).toString("base64");

const verbs = {
  generate: () => generateHybridIdentity(),
  recipient: ({ identity }) => identityToRecipient(identity),
  async encrypt({ recipient, plaintext }) {
    const encrypter = new Encrypter();
    encrypter.addRecipient(recipient);
    return base64(await encrypter.encrypt(bytes(plaintext)));
  },
  async decrypt({ identity, file }) {
    const decrypter = new Decrypter();
    decrypter.addIdentity(identity);
    return base64(await decrypter.decrypt(bytes(file)));
  },
};

const outcomes = [];
for (const request of JSON.parse(await text(process.stdin))) {
  try {
    outcomes.push({ ok: await verbs[request.verb](request) });
  } catch (error) {
    outcomes.push({ error: error.message });
  }
}
console.log(JSON.stringify(outcomes));
