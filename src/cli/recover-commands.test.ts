import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, beforeEach, test } from "node:test";
import { text } from "node:stream/consumers";
import type { ExportedDisk, Launchers } from "#cli/command-context.ts";
import { runCli } from "#cli/program.ts";

/** A control plane as far as these commands ask of it. */
let server: Server;
let begun: object[] = [];
let exported: ExportedDisk[] = [];
/** What a point comes out as. */
let consistency = "application";
/** What its status says, look by look; empty: what it says otherwise. */
let views: object[] = [];
const at = Date.parse("2026-03-01T12:00:00.250Z");

before(async () => {
  const answers: Readonly<Record<string, object>> = {
    "/v1/environments": { environments: [{ id: "shop" }] },
    "/v1/environments/shop/events": { events: [] },
    "/v1/runs/run-1": { id: "run-1", environment: "shop", state: "succeeded", finishedAt: 100, steps: [] },
    "/v1/environments/shop": { disks: [{ volumeId: "vol-2", lineage: "vol-1" }] },
    "/v1/environments/shop/points": { group: null, points: [{ id: "point-1", at, sequence: 41 }] },
  };
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = (request.url ?? "").split("?")[0] ?? "";
    const view = path === "/v1/environments/shop" ? views.shift() : undefined;
    if (request.method === "POST") begun.push(JSON.parse(await text(request)) as object);
    response.setHeader("content-type", "application/json");
    const begunRun = path.endsWith("/points")
      ? {
          id: "point-2",
          at,
          consistency,
          consistencyNote: consistency === "crash" ? "nobody answers" : null,
          volumes: {},
        }
      : { id: "run-1", environment: "shop" };
    response.end(JSON.stringify(request.method === "POST" ? begunRun : (view ?? answers[path] ?? {})));
  };
  server = createServer((request, response) => void answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});
after(() => server.close());
beforeEach(() => {
  begun = [];
  exported = [];
});

async function cli(...line: readonly string[]): Promise<{ code: number; out: string; err: string }> {
  const [out, err]: [string[], string[]] = [[], []];
  const launchers: Partial<Launchers> = {
    exportDisk: async (wanted) => {
      exported.push(wanted);
      const { output, lineage: volume } = wanted;
      return { volume, timeMs: at, sequence: 41, sizeBytes: 1024, output };
    },
  };
  const code = await runCli(line, {
    terminal: {
      out: (line) => void out.push(line),
      err: (line) => void err.push(line),
      interactive: false,
      ask: () => Promise.resolve(""),
    },
    launchers: launchers as Launchers,
    environment: {
      UNDERSTUDY_API: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      UNDERSTUDY_TOKEN: "0123456789abcdef",
    },
    version: "1.2.3",
    signal: new AbortController().signal,
  });
  return { code, out: out.join("\n"), err: err.join("\n") };
}

test("a point is its write; a time is a time", async () => {
  const time = "2026-03-01T12:00:00.250Z";
  for (const [line, body] of [
    [["recover", "--point", "point-1", "--confirm", "shop"], { kind: "failover", at, sequence: 41 }],
    [["recover", "--at", time, "--confirm", "shop"], { kind: "failover", at }],
    [["recover", "--live", "--at", time, "--confirm", "shop"], { kind: "failover", at }],
    [["recover", "--live", "--here", "--at", time, "--confirm", "shop"], { kind: "restore", live: true, at }],
    [
      [
        "recover",
        "--live",
        "--server",
        "db",
        "--volume",
        "vol-2",
        "--server",
        "i-2",
        "--point",
        "point-1",
        "--confirm",
        "shop",
      ],
      { kind: "restore", live: true, servers: ["db", "i-2"], volumes: ["vol-2"], at, sequence: 41 },
    ],
    [
      ["recover", "--live", "--isolated", "--hold", "9", "--server", "db", "--at", time],
      { kind: "drill", holdMs: 9000, servers: ["db"], at },
    ],
    [["instantiate", "--hold", "60"], { kind: "drill", holdMs: 60_000 }],
    [["instantiate", "--point", "point-1", "--hold", "5"], { kind: "drill", holdMs: 5000, at, sequence: 41 }],
    [["point", "verify", "point-1"], { kind: "drill", reason: "to verify point-1", at, sequence: 41 }],
    [["restore", "vol-2", "--at", time, "--confirm", "vol-2"], { kind: "restore", volumes: ["vol-2"], at }],
    [
      ["restore", "vol-2", "--as-it-is", "--confirm", "vol-2"],
      { kind: "restore", volumes: ["vol-2"], asItIs: true },
    ],
    [
      ["restore", "vol-2", "shop", "--point", "point-1", "--confirm", "vol-2"],
      { kind: "restore", volumes: ["vol-2"], at, sequence: 41 },
    ],
  ] as const) {
    begun = [];
    const said = await cli(...line, "--no-wait");
    assert.equal(said.code, 0, said.err);
    const [asked] = begun as Record<string, unknown>[];
    const { reason, force, ...rest } = asked ?? {};
    const { reason: wantedReason, ...wanted } = body as Record<string, unknown>;
    assert.deepEqual(rest, wanted);
    assert.equal(force ?? false, false);
    assert.match(String(reason), wantedReason === undefined ? /^asked for by / : /^to verify point-1$/);
  }
});

test("what can't be undone begins nothing without its confirmation, and no moment is guessed", async () => {
  for (const [line, code] of [
    [["recover", "--at", "2026-03-01T12:00:00Z"], 3],
    [["restore", "vol-2", "--at", "2026-03-01T12:00:00Z"], 3],
    [["restore", "vol-2", "--at", "2026-03-01T12:00:00Z", "--confirm", "shop"], 3],
    [["recover", "--confirm", "shop"], 2],
    [["recover", "--at", "2026-03-01T12:00:00Z", "--here", "--confirm", "shop"], 2],
    [["recover", "--at", "2026-03-01T12:00:00Z", "--server", "db", "--confirm", "shop"], 2],
    [["recover", "--live", "--at", "2026-03-01T12:00:00Z", "--server", "db"], 3],
    [["recover", "--live", "--at", "2026-03-01T12:00:00Z", "--isolated"], 2],
    [["recover", "--live", "--at", "2026-03-01T12:00:00Z", "--hold", "5", "--confirm", "shop"], 2],
    [["recover", "--live", "--at", "2026-03-01T12:00:00Z", "--isolated", "--hold", "5", "--here"], 2],
    [["recover", "--live", "--here", "--at", "2026-03-01T12:00:00Z", "--force", "--confirm", "shop"], 2],
    [["restore", "vol-2", "--confirm", "vol-2"], 2],
    [["restore", "vol-2", "--as-it-is", "--at", "2026-03-01T12:00:00Z", "--confirm", "vol-2"], 2],
    [["restore", "vol-2", "--as-it-is"], 3],
    [["recover", "--at", "2026-03-01T12:00:00Z", "--point", "point-1", "--confirm", "shop"], 2],
    [["recover", "--point", "point-9", "--confirm", "shop"], 4],
    [["recover", "--at", "2026-03-01T12:00:00Z", "--force", "--confirm", "shop"], 2],
    [["instantiate", "--at", "2026-03-01T12:00:00Z"], 2],
    [["point", "verify", "point-9"], 4],
    [["export", "vol-9", "--output", "x"], 4],
    [["export", "vol-2"], 2],
  ] as const) {
    const said = await cli(...line, "--json");
    assert.equal(said.code, code, `${line.join(" ")}: ${said.err}`);
  }
  assert.deepEqual([begun, exported], [[], []]);
});

test("an export names the volume as the vault knows it", async () => {
  const said = await cli("export", "vol-2", "--point", "point-1", "--output", "disk.raw");
  assert.equal(said.code, 0, said.err);
  assert.match(said.out, /disk\.raw is vol-2 as at .* \(write 41\), 1 KiB/u);
  assert.equal((await cli("export", "vol-1", "--output", "disk.raw", "--json")).code, 0);
  assert.deepEqual(
    exported.map(({ lineage, atMs, sequence }) => [lineage, atMs, sequence]),
    [
      ["vol-1", at, 41],
      ["vol-1", null, null],
    ],
  );
});

test("a recovery that is live is followed until its disks are whole, as they are seen after the run", async () => {
  const copy = { volumeId: "vol-2", uri: "nbd://v", totalBytes: 2048 };
  const disk = { volumeId: "vol-2", lineage: "vol-1", site: "east", capture: null, problem: null };
  const seen = [
    // Not looked at since the run ended: says nothing.
    { ...disk, copy: { ...copy, state: "done", copiedBytes: 2048 }, seenAt: 90 },
    { ...disk, copy: { ...copy, state: "copying", copiedBytes: 512 }, seenAt: 110 },
    { ...disk, copy: { ...copy, state: "done", copiedBytes: 2048 }, seenAt: 120 },
  ];
  views = seen.map((one) => ({ disks: [one] }));
  const line = [
    "recover",
    "--live",
    "--server",
    "db",
    "--at",
    "2026-03-01T12:00:00Z",
    "--confirm",
    "shop",
    "--json",
  ];
  const said = await cli(...line);
  assert.equal(said.code, 0, said.err);
  assert.match(said.err, /vol-2: 25 % here \(512 B of 2 KiB\)/u);
  const { state, disks } = JSON.parse(said.out) as {
    state: string;
    disks: readonly { copy: { state: string } }[];
  };
  assert.deepEqual([state, disks.map((one) => one.copy.state)], ["succeeded", ["done"]]);
  assert.equal(views.length, 0, "each look was needed");
});

test("a point of now says what it is, and a consistent one that is not exits 8", async () => {
  assert.equal((await cli("point", "create", "--json")).code, 0);
  assert.equal((await cli("point", "create", "shop", "--consistent")).code, 0);
  consistency = "crash";
  const said = await cli("point", "create", "shop", "--consistent");
  assert.equal(said.code, 8);
  assert.match(said.out, /crash-consistent[^]*nobody answers/u);
  assert.deepEqual(begun, [
    { consistency: "crash" },
    { consistency: "application" },
    { consistency: "application" },
  ]);
});
