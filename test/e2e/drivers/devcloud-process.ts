/** A devcloud as a process of its own, with its admin side door. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Secret } from "#kernel/secret.ts";

interface Ready {
  readonly endpoint: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretKeyFile: string;
  readonly adminTokenFile: string;
}

export interface DevcloudProcess {
  readonly endpoint: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: Secret;
  admin(method: string, path: string, body?: unknown): Promise<unknown>;
  stop(): Promise<void>;
}

const main = new URL("../../../src/devcloud/devcloud-main.ts", import.meta.url).pathname;

export async function startDevcloudProcess(more: readonly string[] = []): Promise<DevcloudProcess> {
  const data = await mkdtemp(join(tmpdir(), "understudy-ec2-"));
  const child = spawn(
    process.execPath,
    [main, "--dialect", "ec2", "--port", "0", "--data", data, "--compute", "none", ...more],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const exited = once(child, "exit");
  // A test file that throws before its hooks run must not leave a process behind.
  process.once("exit", () => child.kill("SIGKILL"));
  const lines = createInterface({ input: child.stdout });
  const first = await Promise.race([
    once(lines, "line").then(([line]) => String(line)),
    exited.then(([code]) => {
      throw new Error(`devcloud ended with ${String(code)} before it was ready`);
    }),
  ]);
  const ready = JSON.parse(first) as Ready;
  const token = (await readFile(ready.adminTokenFile, "utf8")).trim();
  return {
    endpoint: ready.endpoint,
    region: ready.region,
    accessKeyId: ready.accessKeyId,
    secretAccessKey: new Secret((await readFile(ready.secretKeyFile, "utf8")).trim()),
    admin: async (method, path, body) => {
      const answer = await fetch(`${ready.endpoint}/_devcloud/${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
      return answer.json();
    },
    stop: async () => {
      child.kill("SIGTERM");
      await exited;
      await rm(data, { recursive: true });
    },
  };
}
