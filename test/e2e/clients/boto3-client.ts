/** boto3 in a Python process of its own, kept for the whole script. */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import type { Answered, Client, Endpoint, Plain, ServiceName } from "./client.ts";
import { at, text } from "./client.ts";
import { clientEnvironment } from "./client-environment.ts";

/** Debian's: too old for AWS_ENDPOINT_URL (botocore 1.29), so that the endpoint is given in the code. */
const library = "/usr/lib/python3/dist-packages/boto3/__init__.py";

export function boto3Missing(): false | string {
  if (process.env["UNDERSTUDY_STRICT"] === "1" || existsSync(library)) return false;
  return "python3-boto3 is not installed";
}

export interface Boto3Client extends Client {
  /** A URL that is signed in its query. */
  presign(method: "GET" | "POST", operation: string, input: object): Promise<string>;
}

export function openBoto3Client(
  endpoint: Endpoint,
  options: { readonly maxAttempts?: number } = {},
): Boto3Client {
  const child = spawn("/usr/bin/python3", [new URL("boto3-client.py", import.meta.url).pathname], {
    stdio: ["pipe", "pipe", "inherit"],
    env: {
      ...clientEnvironment(),
      BOTO3_TARGET: JSON.stringify({ ...endpoint, maxAttempts: options.maxAttempts ?? 3 }),
    },
  });
  return new Boto3Process(child);
}

class Boto3Process implements Boto3Client {
  readonly name = "boto3";
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  constructor(child: ChildProcessByStdio<Writable, Readable, null>) {
    this.#child = child;
    // A test that fails before it closes us must still end. While it goes on, its servers keep the process running.
    child.unref();
    for (const stream of [child.stdin, child.stdout]) (stream as Partial<Socket>).unref?.();
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  userData(script: string): string {
    return script;
  }

  call(operation: string, input: object, service: ServiceName = "ec2"): Promise<Answered> {
    return this.#ask({ act: "call", service, operation, input });
  }

  async pages(operation: string, input: object, pageSize: number): Promise<Answered> {
    const answered = await this.#ask({ act: "pages", service: "ec2", operation, input, pageSize });
    return answered.code === null ? { ...answered, output: at(answered.output, "pages") } : answered;
  }

  wait(state: string, input: object): Promise<Answered> {
    return this.#ask({ act: "wait", service: "ec2", operation: state, input });
  }

  async presign(method: "GET" | "POST", operation: string, input: object): Promise<string> {
    const { output } = await this.#ask({ act: "presign", service: "ec2", operation, input, method });
    return text(output, "url");
  }

  async close(): Promise<void> {
    const gone = once(this.#child, "exit");
    this.#child.stdin.end();
    await gone;
  }

  async #ask(request: object): Promise<Answered> {
    this.#child.stdin.write(`${JSON.stringify(request)}\n`);
    const line = await this.#lines.next();
    if (line.done === true) throw new Error("the Python process ended: see above");
    const shown = JSON.parse(line.value) as {
      output?: Plain;
      error?: {
        kind: string;
        response: { Error?: { Code: string }; ResponseMetadata?: { HTTPStatusCode: number } };
      };
    };
    const { output = null, error } = shown;
    return {
      code: error === undefined ? null : (error.response.Error?.Code ?? error.kind),
      status: error?.response.ResponseMetadata?.HTTPStatusCode ?? null,
      output,
      shown: shown as Plain,
    };
  }
}
