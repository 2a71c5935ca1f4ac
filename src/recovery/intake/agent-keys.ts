/** Which agent calls: bearer keys, compared in constant time, each for the volumes of one machine. */
import { createHash, timingSafeEqual } from "node:crypto";
import { OperationalError } from "#kernel/errors.ts";
import type { Secret } from "#kernel/secret.ts";
import type { AgentRights } from "./agent-intake.ts";

export interface AgentKey {
  readonly rights: AgentRights;
  readonly key: Secret;
}

const keyForm = /^[\x21-\x7e]{32,512}$/u;

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();

/**
 * Every known key is compared, so that the time taken says nothing about which one came close. Errors: `config.invalid`: a key that
 * could never be sent or is soon guessed, one that two agents share, a volume that two agents may send.
 */
export function createAgentAuthenticator(
  keys: readonly AgentKey[],
): (header: string | undefined) => AgentRights {
  checkKeys(keys);
  const known = keys.map(({ rights, key }) => ({ rights, hash: digest(key.reveal()) }));
  return (header) => {
    const match = /^Bearer ([\x21-\x7e]{1,512})$/u.exec(header ?? "");
    if (match === null) {
      throw new OperationalError(
        "auth.missing",
        "this needs an agent's key: send `Authorization: Bearer KEY`",
      );
    }
    const offered = digest(match[1] ?? "");
    let found: AgentRights | undefined;
    for (const { rights, hash } of known) if (timingSafeEqual(hash, offered)) found = rights;
    if (found === undefined) throw new OperationalError("auth.invalid", "this agent's key is not known here");
    return found;
  };
}

function checkKeys(keys: readonly AgentKey[]): void {
  const owners = new Map<string, string>();
  const senders = new Map<string, string>();
  for (const { rights, key } of keys) {
    const { name, environment, volumes } = rights;
    const text = key.reveal();
    if (!keyForm.test(text)) {
      throw new OperationalError(
        "config.invalid",
        `the key of agent "${name}" is not 32 to 512 printable characters without spaces: make one with "openssl rand -hex 32"`,
      );
    }
    const other = owners.get(text);
    if (other !== undefined) {
      throw new OperationalError(
        "config.invalid",
        `agents "${other}" and "${name}" have the same key: give each its own`,
      );
    }
    owners.set(text, name);
    for (const volume of volumes) {
      const place = `${environment}/${volume}`;
      const sender = senders.get(place);
      if (sender !== undefined) {
        throw new OperationalError(
          "config.invalid",
          `agents "${sender}" and "${name}" both send volume ${volume}: one of them is wrong`,
        );
      }
      senders.set(place, name);
    }
  }
}
