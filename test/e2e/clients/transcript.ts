/** What a script was told on one of the two ways, made comparable with the other. */
import type { Answered, Client, Plain, ServiceName } from "./client.ts";
import assert from "node:assert/strict";

export interface Line {
  readonly operation: string;
  readonly input: object;
  readonly service: ServiceName;
  readonly answered: Answered;
}

/** Runs a script's calls, keeps each answer, and fails at once where the answer is not of the kind that the script expects. */
export class Session {
  readonly client: Client;
  readonly lines: Line[] = [];

  constructor(client: Client) {
    this.client = client;
  }

  async done(operation: string, input: object, service?: ServiceName): Promise<Plain> {
    const answered = await this.#keep(operation, input, this.client.call(operation, input, service), service);
    assert.equal(answered.code, null, `${this.client.name} ${operation}: ${JSON.stringify(answered.shown)}`);
    return answered.output;
  }

  /** Done, and not to be compared. */
  async aside(operation: string, input: object): Promise<Plain> {
    const answered = await this.client.call(operation, input);
    assert.equal(answered.code, null, `${this.client.name} ${operation}: ${JSON.stringify(answered.shown)}`);
    return answered.output;
  }

  async refused(code: string, operation: string, input: object, service?: ServiceName): Promise<void> {
    const answered = await this.#keep(operation, input, this.client.call(operation, input, service), service);
    assert.equal(answered.code, code, `${this.client.name} ${operation}: ${JSON.stringify(answered.shown)}`);
  }

  async pages(operation: string, input: object, pageSize: number): Promise<readonly Plain[]> {
    const answered = await this.#keep(operation, input, this.client.pages(operation, input, pageSize));
    assert.equal(answered.code, null, `${this.client.name} ${operation}: ${JSON.stringify(answered.shown)}`);
    return answered.output as readonly Plain[];
  }

  async wait(state: string, input: object): Promise<void> {
    const answered = await this.#keep(`wait ${state}`, input, this.client.wait(state, input));
    assert.equal(answered.code, null, `${this.client.name} ${state}: ${JSON.stringify(answered.shown)}`);
  }

  async #keep(
    operation: string,
    input: object,
    asked: Promise<Answered>,
    service: ServiceName = "ec2",
  ): Promise<Answered> {
    const answered = await asked;
    this.lines.push({ operation, input, service, answered });
    return answered;
  }
}

/** Line by line; the first difference is shown with its call. */
export function assertSame(direct: readonly Line[], through: readonly Line[]): void {
  const left = new Names();
  const right = new Names();
  for (const [index, line] of direct.entries()) {
    const other = through[index];
    const what = `answer ${index} (${line.operation})`;
    assert.deepEqual(
      comparableLine(right, other),
      comparableLine(left, line),
      `${what} through the gateway, and without it`,
    );
  }
  assert.equal(through.length, direct.length);
}

function comparableLine(names: Names, line: Line | undefined): unknown {
  if (line === undefined) return undefined;
  const { operation, input, answered } = line;
  const { shown } = answered;
  return names.comparable({
    operation,
    input,
    shown: echoesToken.has(operation) ? withoutLength(shown) : shown,
  });
}

/**
 * Operations that answer with the token that came with them. A client older than the token sends none, and the gateway adds one
 * of its own: it stands in the answer, where such a client does not look for it.
 */
const echoesToken: ReadonlySet<string> = new Set(["CreateRouteTable", "CreateNetworkInterface"]);

function withoutLength(value: Plain): Plain {
  if (Array.isArray(value)) return value.map(withoutLength);
  if (value === null || typeof value !== "object") return value;
  const kept = Object.entries(value).filter(([name]) => name !== "content-length");
  return Object.fromEntries(kept.map(([name, inner]) => [name, withoutLength(inner)]));
}

const patterns: readonly (readonly [kind: string, pattern: string])[] = [
  ["key", "-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\\s]+-----END [A-Z ]*PRIVATE KEY-----"],
  ["mac", "\\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\\b"],
  ["uuid", "\\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\\b"],
  ["id", "(?<=-)[0-9a-f]{17}\\b"],
  ["NextToken", '(?<="NextToken": ")[^"]+'],
  ["publicKey", "\\bAAAA[A-Za-z0-9+/]{60,}=*"],
];

/** A time in any of the forms that answers have; only its form is compared, and a fraction not at all: at a whole second Python prints none. */
const times =
  /\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?|\b\d{8}T\d{6}Z|\b[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT/g;

/** Headers between two neighbours (RFC 9110, 7.6.1): the client's neighbour is another one. */
const ofTheConnection: ReadonlySet<string> = new Set(["connection", "keep-alive", "transfer-encoding"]);

/** What each cloud names by lot, by the order in which it was first seen: the same order is the same name. */
export class Names {
  readonly #seen = new Map<string, string>();
  readonly #pattern = new RegExp(patterns.map(([kind, pattern]) => `(?<${kind}>${pattern})`).join("|"), "g");

  /** A new value with names for all of that. */
  comparable(value: unknown, name = ""): unknown {
    if (typeof value === "string") return this.#text(value, name);
    if (Array.isArray(value)) return value.map((item) => this.comparable(item));
    if (value === null || typeof value !== "object") return value;
    const entries = Object.entries(value);
    const kept = /^(?:HTTPH|h)eaders$/.test(name)
      ? entries.filter(([key]) => !ofTheConnection.has(key))
      : entries;
    return Object.fromEntries(kept.map(([key, inner]) => [key, this.comparable(inner, key)]));
  }

  #text(text: string, name: string): string {
    if (name === "NextToken" || name === "KeyFingerprint") return this.#name(name, text);
    if (this.#seen.has(`NextToken ${text}`)) return this.#name("NextToken", text);
    return text
      .replaceAll(times, (time) => `<time ${time.replaceAll(/\.\d+/g, "").replaceAll(/[0-9A-Za-z]+/g, "x")}>`)
      .replaceAll(this.#pattern, (found, ...rest) => {
        const groups = rest.at(-1) as Record<string, string | undefined>;
        const kind = Object.keys(groups).find((each) => groups[each] !== undefined) ?? "";
        return this.#name(kind, found);
      });
  }

  #name(kind: string, found: string): string {
    const key = `${kind} ${found}`;
    let name = this.#seen.get(key);
    if (name === undefined) {
      name = `<${kind} ${this.#seen.size}>`;
      this.#seen.set(key, name);
    }
    return name;
  }
}
