/** A devcloud as a process of its own, for tests that kill it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { EC2Client } from "@aws-sdk/client-ec2";

export interface DevcloudProcess {
  readonly child: ChildProcess;
  readonly endpoint: string;
  readonly credentialsFile: string;
  readonly adminToken: string;
  readonly client: EC2Client;
}

export function makeDataDir(): { path: string; [Symbol.dispose](): void } {
  const path = mkdtempSync(join(tmpdir(), "devcloud-test-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

export async function spawnDevcloud(dataDir: string, args: readonly string[]): Promise<DevcloudProcess> {
  const child = spawn(
    process.execPath,
    ["src/devcloud/devcloud-main.ts", "--dialect", "ec2", "--data", dataDir, ...args],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const lines = createInterface({ input: child.stdout });
  const first = await Promise.race([
    once(lines, "line").then(([line]) => String(line)),
    once(child, "exit").then(([code]) => {
      throw new Error(`devcloud ended with ${String(code)} before it was ready`);
    }),
  ]);
  const ready = JSON.parse(first) as Record<string, string>;
  const endpoint = ready["endpoint"] ?? "";
  return {
    child,
    endpoint,
    credentialsFile: ready["credentialsFile"] ?? "",
    adminToken: readFileSync(ready["adminTokenFile"] ?? "", "utf8").trim(),
    client: new EC2Client({
      endpoint,
      region: "us-east-1",
      maxAttempts: 1,
      credentials: {
        accessKeyId: ready["accessKeyId"] ?? "",
        secretAccessKey: readFileSync(ready["secretKeyFile"] ?? "", "utf8").trim(),
      },
    }),
  };
}

export async function end(devcloud: DevcloudProcess, signal: NodeJS.Signals): Promise<void> {
  devcloud.client.destroy();
  if (devcloud.child.exitCode !== null || devcloud.child.signalCode !== null) return;
  const gone = once(devcloud.child, "exit");
  devcloud.child.kill(signal);
  await gone;
}

export async function admin(
  devcloud: Pick<DevcloudProcess, "endpoint" | "adminToken">,
  method: string,
  path: string,
  body?: unknown,
): Promise<unknown> {
  const response = await fetch(`${devcloud.endpoint}/_devcloud/${path}`, {
    method,
    headers: { authorization: `Bearer ${devcloud.adminToken}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response.json();
}

/** A script that answers its server's name on port 8080 of its address. */
export const webServer = Buffer.from(
  `#!/usr/bin/env node
const server = require("node:http").createServer((request, response) => {
  response.end(JSON.stringify({ name: process.env.SERVER_NAME, pid: process.pid }));
});
server.listen(8080, process.env.SERVER_ADDRESS);
process.on("SIGTERM", () => { console.log("asked to stop"); process.exit(0); });
`,
).toString("base64");

/** What the server answers; undefined while nothing does. */
export async function ask(address: string): Promise<{ name: string; pid: number } | undefined> {
  try {
    const response = await fetch(`http://${address}:8080/`, { signal: AbortSignal.timeout(2000) });
    return (await response.json()) as { name: string; pid: number };
  } catch {
    // Not (or no longer) there.
    return undefined;
  }
}

/** Neither running nor a zombie that its new parent has not yet collected. */
export function isGone(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).startsWith("Z");
  } catch {
    // No such process.
    return true;
  }
}
