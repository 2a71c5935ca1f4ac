import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { encodePart, type PassPart } from "#wire/agent/pass-part.ts";
import { AgentStage, group } from "./agent-stage.ts";
import { undo } from "./undo.ts";
import { WrittenDisk } from "./written-disk.ts";

const sizeBytes = 1024 * 1024;
const { signal } = new AbortController();

interface Answer {
  readonly status: number;
  readonly code: string | undefined;
}

/** A call as anybody on the network could make it. */
function call(
  stage: AgentStage,
  path: string,
  body: Buffer | object,
  headers: Readonly<Record<string, string>>,
): Promise<Answer> {
  const bytes = Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
  const ca = readFileSync(join(stage.folder, "cert.pem"));
  return new Promise((resolve, reject) => {
    const sent = request(
      { host: "localhost", port: stage.network.port, path, method: "POST", ca, headers },
      (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
        response.on("end", () => {
          const { error } = JSON.parse(text) as { error?: { code: string } };
          resolve({ status: response.statusCode ?? 0, code: error?.code });
        });
      },
    );
    sent.on("error", reject);
    sent.end(bytes);
  });
}

test("a key is for its own volumes, and for nothing else", { timeout: 300_000 }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "understudy-disk-"));
  undo(t, () => rmSync(folder, { recursive: true, force: true }));
  using disk = new WrittenDisk(folder, "data", sizeBytes);
  disk.write(0, randomBytes(sizeBytes));
  const stage = await AgentStage.open(t, {
    agents: { web: ["vol-web"], db: ["vol-db"] },
    disks: [{ volume: "vol-web", path: disk.path }],
    agentLines: `every: 1s\n${disk.consistency}`,
  });
  await stage.startVault();
  await stage.startAgent();
  await stage.nextPoint();
  const kept = await stage.content("vol-web", null);

  const stream = "ab".repeat(16);
  const web = { volume: "vol-web", sizeBytes };
  const db = { volume: "vol-db", sizeBytes };
  const bearer = (key: string): Record<string, string> => ({ authorization: `Bearer ${key}` });
  const own = bearer(stage.keyOf("db"));
  const part = (volumes: PassPart["header"]["volumes"]): Buffer =>
    encodePart({
      header: {
        stream,
        number: 1,
        pass: 1,
        volumes,
        end: { instantMs: 1, consistency: "crash", reason: null },
      },
      records: [{ volume: 0, offset: 0, length: 4096, data: randomBytes(4096) }],
    });
  const ofPart = { "content-type": "application/vnd.understudy.part" };

  // Nobody, and a key that is not known.
  for (const [headers, code] of [
    [{}, "auth.missing"],
    [{ authorization: "Basic dXNlcjpwYXNz" }, "auth.missing"],
    [bearer("x".repeat(64)), "auth.invalid"],
    [bearer(`${stage.keyOf("db")}x`), "auth.invalid"],
  ] as const) {
    for (const name of ["begin", "standing", "leaves", "part", "nothing"]) {
      assert.deepEqual(await call(stage, `/v1/${name}`, {}, headers), { status: 401, code });
    }
  }
  // A key of another volume's.
  const forbidden = { status: 403, code: "auth.forbidden" };
  const begin = { stream, after: null, volumes: [web] };
  assert.deepEqual(await call(stage, "/v1/begin", begin, own), forbidden);
  assert.deepEqual(await call(stage, "/v1/begin", { ...begin, volumes: [db, web] }, own), forbidden);
  assert.deepEqual(await call(stage, "/v1/begin", { ...begin, volumes: [db] }, own), {
    status: 200,
    code: undefined,
  });
  const leaves = { stream, volume: "vol-web", firstBlock: 0, blocks: 4 };
  assert.deepEqual(await call(stage, "/v1/leaves", leaves, own), forbidden);
  assert.deepEqual(await call(stage, "/v1/part", part([web]), { ...own, ...ofPart }), forbidden);
  assert.deepEqual(await call(stage, "/v1/part", part([db, web]), { ...own, ...ofPart }), forbidden);
  // What the intake does not have at all.
  for (const path of ["/v1/fence", "/v1/release", "/v1/moment", "/v1/__proto__", "/", "/../desk"]) {
    assert.deepEqual(await call(stage, path, {}, own), { status: 404, code: "not_found" });
  }
  // What is not what it should be.
  const invalid = { status: 400, code: "input.invalid" };
  assert.deepEqual(await call(stage, "/v1/begin", { ...begin, more: 1 }, own), invalid);
  assert.deepEqual(await call(stage, "/v1/part", randomBytes(5000), { ...own, ...ofPart }), invalid);
  assert.deepEqual(await call(stage, "/v1/part", part([db]), own), invalid);
  const large = await call(stage, "/v1/begin", Buffer.alloc(300_000), own);
  assert.deepEqual(large, { status: 413, code: "input.too_large" });
  // A part that comes twice counts once; one that leaves another out does not count.
  assert.equal((await call(stage, "/v1/part", part([db]), { ...own, ...ofPart })).status, 200);
  assert.equal((await call(stage, "/v1/part", part([db]), { ...own, ...ofPart })).status, 200);

  await stage.stopAgent();
  assert.ok((await stage.content("vol-web", null)).bytes.equals(kept.bytes));
});

test("an agent ends, and says why, when no repetition helps", { timeout: 300_000 }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "understudy-disk-"));
  undo(t, () => rmSync(folder, { recursive: true, force: true }));
  using disk = new WrittenDisk(folder, "data", sizeBytes);
  disk.write(0, randomBytes(sizeBytes));
  const stage = await AgentStage.open(t, {
    agents: { web: ["vol-web"] },
    disks: [{ volume: "vol-web", path: disk.path }],
    agentLines: `every: 1s\n${disk.consistency}`,
  });
  await stage.startVault();
  const key = stage.keyOf("web");
  const keyFile = join(stage.folder, "web.key");

  writeFileSync(keyFile, "f".repeat(64));
  await stage.startAgent();
  const wrong = await stage.agentEnd;
  assert.equal(wrong.code, 5);
  assert.match(wrong.errors, /key is not known/u);
  assert.doesNotMatch(wrong.errors, /ffffffff/u);
  writeFileSync(keyFile, key);

  // A vault that is not the one that the agent trusts.
  const config = join(stage.folder, "understudy-agent.yaml");
  const text = readFileSync(config, "utf8");
  writeFileSync(config, text.replace(", ca: ./cert.pem", ""));
  await stage.startAgent();
  const untrusted = await stage.agentEnd;
  assert.equal(untrusted.code, 5);
  assert.match(untrusted.errors, /not trusted here/u);
  writeFileSync(config, text);

  await stage.startAgent();
  await stage.nextPoint();
  // A second one with the same state.
  await assert.rejects(stage.startAgent(), /another agent uses/u);
});

test(
  "when the environment has moved, the agent of the site that was left is refused",
  { timeout: 300_000 },
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), "understudy-disk-"));
    undo(t, () => rmSync(folder, { recursive: true, force: true }));
    using disk = new WrittenDisk(folder, "data", sizeBytes);
    disk.write(0, randomBytes(sizeBytes));
    const stage = await AgentStage.open(t, {
      agents: { web: ["vol-web"] },
      disks: [{ volume: "vol-web", path: disk.path }],
      agentLines: `every: 1s\n${disk.consistency}`,
    });
    await stage.startVault();
    await stage.startAgent();
    await stage.nextPoint();
    await using desk = stage.desk();
    await desk.fence(group, 1, signal);
    const fenced = await desk.moment(group, null, signal);
    disk.write(0, randomBytes(100));
    const end = await stage.agentEnd;
    assert.equal(end.code, 3);
    assert.match(end.errors, /epoch 0 are not taken any more.*remove .*agent and start the agent again/u);
    assert.deepEqual(await desk.moment(group, null, signal), fenced);
    // Started again, it is refused again; with its state removed it is the environment's new machine.
    await stage.startAgent();
    assert.equal((await stage.agentEnd).code, 3);
    rmSync(join(stage.folder, "agent"), { recursive: true });
    await stage.startAgent();
    await stage.nextPoint();
    assert.ok((await stage.content("vol-web", null)).bytes.equals(disk.content));
  },
);
