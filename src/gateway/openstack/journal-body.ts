/** A request's body as the journal keeps it: without secrets, but with the user data that a rebuilt server needs. */
import type { Json } from "#kernel/json.ts";

const secretName = /password|passphrase|adminpass|admin_pass|secret|private_?key|auth_key|^psk$/i;

/** Text of the user's own: its keys are no fields of the API, and takeovers need its values. */
const ownText: ReadonlySet<string> = new Set([
  "metadata",
  "meta",
  "user_data",
  "tags",
  "properties",
  "extra_specs",
]);

/** `body` is parsed JSON. */
export function withoutSecrets(body: unknown): Json {
  if (Array.isArray(body)) return body.map((item) => withoutSecrets(item));
  if (typeof body !== "object" || body === null) return body as Json;
  const kept: [string, Json][] = [];
  for (const [name, value] of Object.entries(body)) {
    if (ownText.has(name)) kept.push([name, value as Json]);
    // The name of an action (`changePassword`) is no secret, what it holds may be.
    else if (!secretName.test(name) || (typeof value === "object" && value !== null)) {
      kept.push([name, withoutSecrets(value)]);
    }
  }
  return Object.fromEntries(kept);
}
