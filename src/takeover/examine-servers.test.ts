import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Observed } from "#cloud/contract.ts";
import type { DiskHost } from "#cloud/disk-host.ts";
import type { Verification } from "#health/verification.ts";
import { systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { resourceId } from "#kernel/ids.ts";
import { describeFailures, examineServers } from "#takeover/examine-servers.ts";

const folder = mkdtempSync(join(tmpdir(), "examine-"));
const { signal } = new AbortController();
let server: Server;
let port: number;
/** What it answers, request by request; the last one stays. */
let answers: string[] = ["torn=0"];

before(async () => {
  server = createServer((_, response) => response.end(answers.length > 1 ? answers.shift() : answers[0]));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  ({ port } = server.address() as AddressInfo);
});
after(() => {
  server.close();
  rmSync(folder, { recursive: true });
});

function script(body: string): string {
  const path = join(folder, "judge");
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}

const copy = {
  resource: { kind: "server", id: resourceId("i-copy"), spec: {}, tags: {} },
  status: "ready",
  addresses: { private: ["10.0.0.9"], public: ["127.0.0.1"] },
} as unknown as Observed<"server">;

const host = {
  agentAnswers: async () => true,
  exec: async (_server: string, { path }: { path: string }) =>
    path === "/bin/good" ? { exitCode: 0, output: "whole" } : { exitCode: 4, output: "torn" },
  console: async () => "guest: ready\nack 7\n",
  screenshot: async () => Buffer.from("png"),
} as unknown as DiskHost;

async function examine(
  check: Verification["check"],
  rest: {
    withinMs?: number;
    host?: DiskHost | undefined;
    copy?: typeof copy | undefined;
    select?: object;
  } = {},
) {
  const verification = {
    name: "it",
    select: { tier: "db", ...rest.select },
    withinMs: 0,
    timeoutMs: 2000,
    check,
  };
  const subject = { id: resourceId("i-1"), name: "db-1", tags: { tier: "db" } };
  const [seen] = await examineServers(
    {
      environment: "shop",
      site: "west",
      servers: [{ ...subject, copy: "copy" in rest ? rest.copy : copy }],
      verifications: [{ ...verification, withinMs: rest.withinMs ?? 0 }],
      host: "host" in rest ? rest.host : host,
      clock: systemClock,
    },
    signal,
  );
  assert.ok(seen !== undefined);
  return { ...seen, verdict: seen.verdicts[0] };
}

test("by HTTP and TCP, at the copy's own address, until it holds or the time is over", async () => {
  const http = { type: "http", port, path: "/", status: 200, contains: "torn=0" } as const;
  assert.equal((await examine(http)).verdict?.problem, null);
  answers = ["starting", "torn=0"];
  assert.equal((await examine(http, { withinMs: 20_000 })).verdict?.problem, null);
  answers = ["torn=3"];
  assert.match((await examine(http)).verdict?.problem ?? "", /does not contain "torn=0"/u);
  assert.equal((await examine({ type: "tcp", port })).verdict?.problem, null);
  assert.match((await examine({ type: "tcp", port: 1 })).verdict?.problem ?? "", /ECONNREFUSED/u);
});

test("by the guest's agent: that it answers, or what a program in the guest ends with", async () => {
  const program = (path: string) => ({ type: "agent", program: { path, args: [] } }) as const;
  assert.equal((await examine({ type: "agent", program: null })).verdict?.problem, null);
  assert.deepEqual((await examine(program("/bin/good"))).verdict, {
    check: "it",
    problem: null,
    output: "whole",
  });
  const bad = await examine(program("/bin/bad"));
  assert.deepEqual(bad.verdict, { check: "it", problem: "/bin/bad ended with 4", output: "torn" });
  assert.equal(describeFailures([bad]), "db-1: it fails: /bin/bad ended with 4");
  assert.match((await examine(program("/x"), { host: undefined })).verdict?.problem ?? "", /no host agent/u);
});

test("by a script, which is told what it judges", async () => {
  const path = script(
    'echo "$UNDERSTUDY_ENVIRONMENT $UNDERSTUDY_SERVER_NAME $UNDERSTUDY_SERVER_ADDRESS"; exit 0',
  );
  const good = await examine({ type: "script", path });
  assert.deepEqual(good.verdict, { check: "it", problem: null, output: "shop db-1 127.0.0.1\n" });
  const bad = await examine({ type: "script", path: script("exit 9") });
  assert.equal(bad.verdict?.problem, "it ended with 9");
});

test("console and screenshot are kept, whatever the verdict; what can't be had is left out", async () => {
  const seen = await examine({ type: "tcp", port: 1 });
  assert.deepEqual([seen.copyId, seen.console], ["i-copy", "guest: ready\nack 7\n"]);
  assert.equal(Buffer.from(seen.screenshot ?? "", "base64").toString(), "png");
  const mute = {
    ...host,
    console: () => Promise.reject(new OperationalError("machine.failing", "it is away")),
    screenshot: async () => null,
  } as unknown as DiskHost;
  const less = await examine({ type: "tcp", port }, { host: mute });
  assert.deepEqual([less.console, less.screenshot, less.verdict?.problem], [null, null, null]);
});

test("a check is about the servers that it selects; a server that is not there passes none", async () => {
  assert.deepEqual((await examine({ type: "tcp", port: 1 }, { select: { tier: "web" } })).verdicts, []);
  const gone = await examine({ type: "tcp", port }, { copy: undefined });
  assert.equal(gone.verdict?.problem, "the server is not there");
});
