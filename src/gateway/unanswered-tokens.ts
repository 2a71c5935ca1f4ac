/**
 * Idempotency tokens of ours whose caller never got an answer. A caller without tokens of its own that sends the very same
 * request again is retrying: with the same token the cloud returns what it made the first time, not a second one.
 *
 * A token is given out once. Two identical requests after one lost answer are a retry and a new command.
 */
import { hash } from "node:crypto";
import { canonicalJson } from "#kernel/json.ts";
import type { ChangeCommand } from "./dialect.ts";

const keptMs = 600_000;
const keptEntries = 1_024;

export class UnansweredTokens {
  readonly #tokens = new Map<string, { readonly token: string; readonly at: number }>();

  remember(principal: string, command: ChangeCommand, token: string, now: number): void {
    const key = requestKey(principal, command);
    this.#tokens.delete(key);
    if (this.#tokens.size >= keptEntries) {
      const oldest = this.#tokens.keys().next().value;
      if (oldest !== undefined) this.#tokens.delete(oldest);
    }
    this.#tokens.set(key, { token, at: now });
  }

  take(principal: string, command: ChangeCommand, now: number): string | undefined {
    if (this.#tokens.size === 0) return undefined;
    const key = requestKey(principal, command);
    const found = this.#tokens.get(key);
    if (found === undefined) return undefined;
    this.#tokens.delete(key);
    return now - found.at <= keptMs ? found.token : undefined;
  }
}

/** Who asked for what: equal for a retry, and for nothing else. */
export function requestKey(
  principal: string,
  command: Pick<ChangeCommand, "service" | "operation" | "input">,
): string {
  return hash(
    "sha256",
    `${principal}\n${command.service}\n${command.operation}\n${canonicalJson(command.input)}`,
  );
}
