/** What the suites ask of a client, whichever it is: the operation's own name and input, the answer as that client shows it. */
import assert from "node:assert/strict";

export type Plain = null | boolean | number | string | readonly Plain[] | { readonly [name: string]: Plain };

/** A binary value, as it stands in inputs and answers: base64. */
export interface Bytes {
  readonly $bytes: string;
}

export function bytes(text: string): Bytes {
  return { $bytes: Buffer.from(text).toString("base64") };
}

export interface Answered {
  /** The error's code; null if there was none. */
  readonly code: string | null;
  /** HTTP status, where the client tells it. */
  readonly status: number | null;
  /** The answer in EC2's own names, for the script to go on with; null for an error. */
  readonly output: Plain;
  /** All that the client shows of it: what is compared. */
  readonly shown: Plain;
}

export type ServiceName = "ec2" | "sts" | "elbv2" | "autoscaling";

export interface Client {
  readonly name: string;
  /** User data as this client takes it: some encode it themselves. */
  userData(script: string): string;
  call(operation: string, input: object, service?: ServiceName): Promise<Answered>;
  /** All pages of a listing, by the client's own paginator: `output` is the list of pages. */
  pages(operation: string, input: object, pageSize: number): Promise<Answered>;
  /** By the client's own waiter, e.g. `InstanceRunning`. */
  wait(state: string, input: object): Promise<Answered>;
  close(): Promise<void>;
}

/** Where a client is pointed at, and as whom. */
export interface Endpoint {
  readonly url: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** `VpcId` of `{Vpc: {VpcId}}` by the path `Vpc.VpcId`; numbers index lists. */
export function at(value: Plain, path: string): Plain {
  let found: Plain | undefined = value;
  for (const step of path.split(".")) {
    found =
      found !== null && typeof found === "object"
        ? (found as Readonly<Record<string, Plain>>)[step]
        : undefined;
  }
  assert.ok(found !== undefined, `there is no ${path} in ${JSON.stringify(value)}`);
  return found;
}

export function text(value: Plain, path: string): string {
  const found = at(value, path);
  assert.ok(typeof found === "string", `${path} is a text in ${JSON.stringify(value)}`);
  return found;
}

export function list(value: Plain, path: string): readonly Plain[] {
  const found = at(value, path);
  assert.ok(Array.isArray(found), `${path} is a list in ${JSON.stringify(value)}`);
  return found as readonly Plain[];
}
