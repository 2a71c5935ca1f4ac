// The load generator, a process of its own: commands come as JSON lines on stdin, results go out as JSON lines.
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { on } from "node:events";
import { Worker } from "node:worker_threads";
import { type Dispatcher, Pool } from "undici";
import { Secret } from "#kernel/secret.ts";
import { signSigV4 } from "#wire/aws/sigv4.ts";
import type { Pace } from "./pacer.ts";

export interface LoadCommand {
  readonly kind: "closed" | "open" | "slow";
  readonly port: number;
  readonly action: "RunInstances" | "DescribeInstances";
  readonly connections: number;
  readonly milliseconds: number;
  /** A closed loop goes on until it has sent at least so many. */
  readonly atLeast: number;
  /** Of an open loop, a second. */
  readonly rate: number;
  readonly key: { readonly id: string; readonly secret: string };
}

export interface LoadResult {
  readonly count: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly bytes: number;
}

interface Prepared {
  readonly headers: string[];
  readonly body: string;
}

const bodies = {
  RunInstances: (index: number) =>
    `Action=RunInstances&Version=2016-11-15&ImageId=ami-0123456789abcdef0&InstanceType=t3.micro&MinCount=1&MaxCount=1&SubnetId=subnet-0123456789abcdef0&SecurityGroupId.1=sg-0123456789abcdef0&KeyName=shop&UserData=IyEvYmluL3NoCmVjaG8gaGVsbG8K&TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=Name&TagSpecification.1.Tag.1.Value=web-${index}`,
  DescribeInstances: (index: number) =>
    `Action=DescribeInstances&Version=2016-11-15&Filter.1.Name=tag%3AName&Filter.1.Value.1=web-${index}`,
};

/** Signed before the clock starts: only the other side's work is measured. */
function prepare(command: LoadCommand, count: number, body = bodies[command.action]): Prepared[] {
  const host = `127.0.0.1:${command.port}`;
  const secretAccessKey = new Secret(command.key.secret);
  return Array.from({ length: count }, (_, index) => {
    const text = body(index);
    const headers = { host, "content-type": "application/x-www-form-urlencoded; charset=utf-8" };
    const added = signSigV4(
      { method: "POST", path: "/", headers, body: text },
      { accessKeyId: command.key.id, secretAccessKey },
      { region: "eu-west-1", service: "ec2" },
      Date.now(),
    );
    return { headers: Object.entries({ ...headers, ...added }).flat(), body: text };
  });
}

class Answer implements Dispatcher.DispatchHandler {
  readonly #done: (status: number, bytes: number) => void;
  #status = 0;
  #bytes = 0;

  constructor(done: (status: number, bytes: number) => void) {
    this.#done = done;
  }

  onRequestStart(): void {}

  onResponseStart(_controller: Dispatcher.DispatchController, status: number): void {
    this.#status = status;
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#bytes += chunk.length;
  }

  onResponseEnd(): void {
    this.#done(this.#status, this.#bytes);
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    throw error;
  }
}

function send(pool: Pool, request: Prepared): Promise<number> {
  return new Promise((resolve, reject) => {
    pool.dispatch(
      { method: "POST", path: "/", headers: request.headers, body: request.body },
      new Answer((status, bytes) =>
        status === 200 ? resolve(bytes) : reject(new Error(`answered with ${status}`)),
      ),
    );
  });
}

function summary(latencies: number[], bytes: number, elapsedMs: number): LoadResult {
  latencies.sort((a, b) => a - b);
  const at = (share: number): number => latencies[Math.floor((latencies.length - 1) * share)] ?? Number.NaN;
  return {
    count: latencies.length,
    perSecond: (latencies.length / elapsedMs) * 1000,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    bytes,
  };
}

/** Every connection sends its next request when the last is answered. */
async function closedLoop(command: LoadCommand, pool: Pool): Promise<LoadResult> {
  const requests = prepare(command, 2_000);
  const latencies: number[] = [];
  let bytes = 0;
  let next = 0;
  const started = performance.now();
  const worker = async (): Promise<void> => {
    for (;;) {
      const from = performance.now();
      if (from - started >= command.milliseconds && next >= command.atLeast) return;
      const request = requests[next++ % requests.length];
      if (request !== undefined) bytes += await send(pool, request);
      latencies.push(performance.now() - from);
    }
  };
  await Promise.all(Array.from({ length: command.connections }, worker));
  return summary(latencies, bytes, performance.now() - started);
}

/** Of an open loop: all connections are open, and have been used, before the clock starts. */
const leadInMs = 250;

/** Requests start when they are due, answered or not; the time waited for a late start counts. */
async function openLoop(command: LoadCommand, pool: Pool): Promise<LoadResult> {
  const leadIn = Math.round((command.rate * leadInMs) / 1000);
  const total = leadIn + Math.round((command.rate * command.milliseconds) / 1000);
  const requests = prepare(command, total);
  await Promise.all(requests.slice(0, command.connections).map((request) => send(pool, request)));
  const latencies: number[] = [];
  const pending: Promise<void>[] = [];
  let bytes = 0;
  const pace: Pace = { rate: command.rate, total };
  const pacer = new Worker(new URL("./pacer.ts", import.meta.url), { workerData: pace });
  let started: number | undefined;
  let sent = 0;
  for await (const [due] of on(pacer, "message", { close: ["exit"] }) as AsyncIterable<[number]>) {
    if (started === undefined) {
      started = due - performance.timeOrigin;
      continue;
    }
    const began = started;
    for (; sent < due; sent += 1) {
      const counts = sent >= leadIn;
      const at = began + (sent / command.rate) * 1000;
      const request = requests[sent];
      if (request === undefined) continue;
      pending.push(
        send(pool, request).then((size) => {
          if (!counts) return;
          bytes += size;
          latencies.push(performance.now() - at);
        }),
      );
    }
  }
  await Promise.all(pending);
  return summary(latencies, bytes, performance.now() - (started ?? Number.NaN) - leadInMs);
}

/** Readers of the 10 MiB answer that take it in slowly, all at once. */
async function slowReaders(command: LoadCommand, pool: Pool): Promise<LoadResult> {
  const requests = prepare(
    command,
    command.connections,
    () => "Action=DescribeInstances&Version=2016-11-15&Size=10MiB",
  );
  const started = performance.now();
  const latencies: number[] = [];
  const sizes = await Promise.all(
    requests.map(async (request) => {
      const answer = await pool.request({ method: "POST", path: "/", ...request });
      let size = 0;
      for await (const chunk of answer.body) {
        size += (chunk as Buffer).length;
        await sleep(2);
      }
      latencies.push(performance.now() - started);
      return size;
    }),
  );
  return summary(latencies, Math.min(...sizes), performance.now() - started);
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line) as LoadCommand;
  const pool = new Pool(`http://127.0.0.1:${command.port}`, {
    connections: command.connections,
    pipelining: 1,
  });
  const work = { closed: closedLoop, open: openLoop, slow: slowReaders }[command.kind];
  const result = await work(command, pool);
  await pool.close();
  console.log(JSON.stringify(result));
}
