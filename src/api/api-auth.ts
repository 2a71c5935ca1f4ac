/** Who may call the API: bearer tokens, compared in constant time, each with one role. */
import { createHash, timingSafeEqual } from "node:crypto";
import { OperationalError } from "#kernel/errors.ts";
import type { Secret } from "#kernel/secret.ts";

/** `operator` may do everything; `witness` may read its probes and report what it sees, for one environment. */
export type Caller =
  | { readonly role: "operator"; readonly name: string }
  | { readonly role: "witness"; readonly name: string; readonly environment: string };

export interface ApiToken {
  readonly caller: Caller;
  readonly token: Secret;
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

const tokenForm = /^[\x21-\x7e]{16,512}$/u;

function nameOf(caller: Caller): string {
  return caller.role === "operator" ? "the operator" : `witness "${caller.name}" of "${caller.environment}"`;
}

/** Errors: `config.invalid`: a token that could never be sent or is soon guessed, and one that two callers share. */
function checkTokens(tokens: readonly ApiToken[]): void {
  const owners = new Map<string, Caller>();
  for (const { caller, token } of tokens) {
    const text = token.reveal();
    if (!tokenForm.test(text)) {
      throw new OperationalError(
        "config.invalid",
        `the token of ${nameOf(caller)} is not 16 to 512 printable characters without spaces: make one with "openssl rand -hex 24"`,
      );
    }
    const other = owners.get(text);
    if (other !== undefined) {
      throw new OperationalError(
        "config.invalid",
        `${nameOf(other)} and ${nameOf(caller)} have the same token: give each its own`,
      );
    }
    owners.set(text, caller);
  }
}

/** Every known token is compared, so that the time taken says nothing about which one came close. */
export function createAuthenticator(tokens: readonly ApiToken[]): (header: string | undefined) => Caller {
  checkTokens(tokens);
  const known = tokens.map(({ caller, token }) => ({ caller, hash: digest(token.reveal()) }));
  return (header) => {
    if (header === undefined || header === "") {
      throw new OperationalError(
        "auth.missing",
        "this needs an API token: send `Authorization: Bearer TOKEN`",
      );
    }
    const match = /^Bearer ([\x21-\x7e]{1,512})$/u.exec(header);
    const offered = digest(match?.[1] ?? "");
    let found: Caller | undefined;
    for (const { caller, hash } of known) if (timingSafeEqual(hash, offered)) found = caller;
    if (match === null || found === undefined) {
      throw new OperationalError("auth.invalid", "this API token is not known here");
    }
    return found;
  };
}

export function requireOperator(caller: Caller): Caller {
  if (caller.role !== "operator") {
    throw new OperationalError("auth.forbidden", "a witness's token may only report what the witness sees");
  }
  return caller;
}
