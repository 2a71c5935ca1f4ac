// Starts the control plane as a process and speaks with it as its users do: over its API.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { EC2Client } from "@aws-sdk/client-ec2";
import { request } from "undici";
import type { EnvironmentStatus, PairingView, PointsView, RunView } from "#takeover/control.ts";
import type { TimelineEvent } from "#takeover/run-ledger.ts";
import type { RunKind } from "#model/run.ts";

export const environmentName = "shop";

export type Side = "east" | "west";
export const regions: Readonly<Record<Side, string>> = { east: "us-east-1", west: "us-west-2" };

export interface ApiResource {
  readonly kind: string;
  readonly id: string;
  readonly tags: Readonly<Record<string, string>>;
}

export interface Key {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

interface Urls {
  readonly gateway: string;
  readonly api: string;
}

export class EngineUnderTest implements AsyncDisposable {
  readonly #clients = new Map<Side, EC2Client>();
  readonly #urls: Urls;
  readonly #key: Key;
  readonly #child: ChildProcess;
  readonly #lines: Interface;
  readonly api: string;
  readonly #token: string;
  /** The signal that ended it, or its exit code. */
  readonly exited: Promise<string>;
  #gone = false;

  private constructor(child: ChildProcess, lines: Interface, urls: Urls, token: string, key: Key) {
    this.#child = child;
    this.#lines = lines;
    this.api = urls.api;
    this.#token = token;
    this.#urls = urls;
    this.#key = key;
    this.exited = once(child, "exit").then(([code, signal]) => {
      this.#gone = true;
      return String(signal ?? code);
    });
  }

  /** `undefined`: it died at its durable step before it was ready. */
  static async start(folder: string, key: Key, killAt = 0): Promise<EngineUnderTest | undefined> {
    const program = new URL("./engine-process.ts", import.meta.url).pathname;
    const child = spawn(process.execPath, [program, join(folder, "understudy.yaml"), String(killAt)], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, NODE_COMPILE_CACHE: join(tmpdir(), "understudy-compile-cache") },
    });
    const lines = createInterface({ input: child.stdout });
    const ended = once(child, "exit").then(([code, signal]) => ({ code, signal }) as const);
    const first = await Promise.race([once(lines, "line").then(([line]) => String(line)), ended]);
    if (typeof first !== "string") {
      if (first.signal === "SIGKILL") return undefined;
      throw new Error(`the engine ended with ${String(first.code)} before it was ready`);
    }
    const token = readFileSync(join(folder, "data", "api-token"), "utf8").trim();
    return new EngineUnderTest(child, lines, JSON.parse(first) as Urls, token, key);
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** As the owner's tool; it signs for the region of the side that is active. */
  gateway(side: Side = "east"): EC2Client {
    const client =
      this.#clients.get(side) ??
      new EC2Client({
        endpoint: this.#urls.gateway,
        region: regions[side],
        credentials: this.#key,
        maxAttempts: 1,
      });
    this.#clients.set(side, client);
    return client;
  }

  /** Dies at its n-th durable step from now on. */
  async arm(killAt: number): Promise<void> {
    await this.#ask(`arm ${killAt}`);
  }

  /** Durable steps since it was armed. */
  async steps(): Promise<number> {
    return Number(await this.#ask("steps"));
  }

  async #ask(line: string): Promise<string> {
    const answer = once(this.#lines, "line");
    this.#child.stdin?.write(`${line}\n`);
    const [text] = (await answer) as [string];
    return text;
  }

  async #call<T>(path: string, body?: object): Promise<T> {
    const answer = await request(new URL(path, this.api), {
      method: body === undefined ? "GET" : "POST",
      headers: { authorization: `Bearer ${this.#token}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.body.text();
    if (answer.statusCode >= 300) throw new Error(`${path}: ${answer.statusCode} ${text}`);
    return JSON.parse(text) as T;
  }

  async startRun(
    kind: RunKind,
    extra: { force?: boolean; reason?: string; at?: number; live?: boolean } = {},
  ): Promise<{ id: string }> {
    const { force = false, reason = "a test", ...more } = extra;
    return this.#call(`/v1/environments/${environmentName}/runs`, { kind, reason, force, ...more });
  }

  status(): Promise<EnvironmentStatus> {
    return this.#call(`/v1/environments/${environmentName}`);
  }

  async resources(): Promise<readonly ApiResource[]> {
    const { resources } = await this.#call<{ resources: readonly ApiResource[] }>(
      `/v1/environments/${environmentName}/resources`,
    );
    return resources;
  }

  async pairings(): Promise<readonly PairingView[]> {
    const { pairings } = await this.#call<{ pairings: readonly PairingView[] }>(
      `/v1/environments/${environmentName}/pairings`,
    );
    return pairings;
  }

  points(): Promise<PointsView> {
    return this.#call(`/v1/environments/${environmentName}/points`);
  }

  async runs(): Promise<readonly RunView[]> {
    const { runs } = await this.#call<{ runs: readonly { id: string }[] }>(
      `/v1/runs?environment=${environmentName}`,
    );
    return Promise.all(runs.map(({ id }) => this.#call<RunView>(`/v1/runs/${id}`)));
  }

  async events(): Promise<readonly TimelineEvent[]> {
    const { events } = await this.#call<{ events: readonly TimelineEvent[] }>(
      `/v1/environments/${environmentName}/events?limit=500`,
    );
    return events;
  }

  #disconnect(): void {
    for (const client of this.#clients.values()) client.destroy();
  }

  async stop(): Promise<void> {
    this.#disconnect();
    if (!this.#gone) this.#child.stdin?.end();
    await this.exited;
  }

  async kill(): Promise<void> {
    this.#disconnect();
    this.#child.kill("SIGKILL");
    await this.exited;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

/** A connection that breaks is told of before the process's end is. */
export async function isGone(engine: EngineUnderTest): Promise<boolean> {
  const wait = new Promise<"alive">((resolve) => {
    setTimeout(resolve, 5000, "alive");
  });
  return (await Promise.race([engine.exited, wait])) !== "alive";
}
