/** A restore with nothing but the store and the key: the control plane, the vault's process and the log's folder are gone. */
import assert from "node:assert/strict";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { packConfiguration } from "#recovery/kept-points.ts";
import {
  blockBytes,
  captureDisk,
  group,
  makeStage,
  momentNow,
  onlyStoreAndKey,
  openExport,
  shipped,
  volume,
} from "./vault-stage.ts";

const sizeBytes = 8 * 1024 * 1024;
const iso = (at: number): string => new Date(at).toISOString();

test("any moment of the write log comes out of the store alone", async (t) => {
  const stage = makeStage(t);
  assert.equal((await stage.vault("init")).code, 0);
  const served = await stage.serve();
  const host = await captureDisk(served.desk, sizeBytes);
  const shadow = Buffer.alloc(sizeBytes);
  shadow.fill(0x11, 0, blockBytes);
  const moments: { at: number; content: Buffer }[] = [];
  for (const [index, offset] of [0, 1_048_576, 4_198_400].entries()) {
    await host.write(offset, Buffer.alloc(blockBytes, 0x20 + index));
    shadow.fill(0x20 + index, offset, offset + blockBytes);
    moments.push({ at: (await momentNow(served.desk)).at, content: Buffer.from(shadow) });
  }
  await shipped(served.desk);
  await host[Symbol.asyncDispose]();
  await served.kill();
  rmSync(join(stage.folder, "vd"), { recursive: true });
  rmSync(join(stage.folder, "understudy.yaml"));

  const bare = onlyStoreAndKey(stage);
  for (const [index, { at, content }] of moments.entries()) {
    const output = join(stage.folder, `disk-${index}.raw`);
    const wanted = ["--volume", volume, "--at", iso(at), "--output", output, "--json"];
    const ended = await stage.vault("cat", ...wanted, ...bare);
    assert.equal(ended.code, 0, ended.stderr);
    const said = JSON.parse(ended.stdout.toString()) as { timeMs: number; earlier: null; from: string };
    assert.deepEqual([said.timeMs, said.earlier, said.from], [at, null, "log"]);
    assert.ok(readFileSync(output).equals(content), `moment ${index}`);
  }
  const [first, , last] = moments;
  assert.ok(first !== undefined && last !== undefined);
  const output = await stage.vault("cat", "--volume", volume, "--at", iso(first.at), ...bare);
  assert.ok(output.stdout.equals(first.content), "to standard output");
  assert.match(output.stderr, /from the write log/u);

  // Later than the store knows: the last that it has, and said so.
  const late = await stage.vault("cat", "--volume", volume, "--at", iso(last.at + 5), ...bare);
  assert.ok(late.stdout.equals(last.content));
  assert.match(late.stderr, /earlier moment than was asked for/u);

  const before = await stage.vault("cat", "--volume", volume, "--at", "2020-01-01T00:00:00Z", ...bare);
  assert.equal(before.code, 4, before.stderr);
  const unknown = await stage.vault("cat", "--volume", "vol-none", "--environment", group, ...bare);
  assert.equal(unknown.code, 4, unknown.stderr);
  const both = await stage.vault("cat", "a-point", "--volume", volume, ...bare);
  assert.equal(both.code, 2, both.stderr);
});

test("a moment is mounted from the store alone, with changes that are kept", async (t) => {
  const stage = makeStage(t);
  assert.equal((await stage.vault("init")).code, 0);
  const served = await stage.serve();
  const host = await captureDisk(served.desk, sizeBytes);
  await host.write(8192, Buffer.alloc(blockBytes, 0x31));
  const { at } = await momentNow(served.desk);
  await host.write(8192, Buffer.alloc(blockBytes, 0x32));
  await shipped(served.desk);
  await host[Symbol.asyncDispose]();
  await served.kill();
  rmSync(join(stage.folder, "vd"), { recursive: true });

  const program = join(import.meta.dirname, "..", "..", "..", "bin", "understudy");
  const args = ["--volume", volume, "--at", iso(at), "--socket", "./d.sock", "--writable", "./changes"];
  const mount = async (work: (uri: string) => Promise<void>): Promise<void> => {
    const child = spawn(program, ["vault", "mount", ...args, ...onlyStoreAndKey(stage)], {
      cwd: stage.folder,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = new Promise<void>((resolve) => void child.once("close", () => resolve()));
    try {
      const line = new Promise<string>((resolve) => {
        createInterface({ input: child.stdout }).once("line", resolve);
      });
      const uri = await Promise.race([line, ended]);
      assert.ok(uri !== undefined, "mount ended before it served");
      await work(uri);
    } finally {
      child.kill("SIGTERM");
      await ended;
    }
  };
  await mount(async (uri) => {
    await using disk = await openExport(uri);
    assert.equal((await disk.read(8192, 1))[0], 0x31);
    await disk.write(0, Buffer.alloc(blockBytes, 0x77));
    await disk.flush();
  });
  await mount(async (uri) => {
    await using disk = await openExport(uri);
    assert.equal((await disk.read(0, 1))[0], 0x77);
  });
});

test("recovery points are read, and their disks taken out, without a control plane", async (t) => {
  const stage = makeStage(t);
  assert.equal((await stage.vault("init")).code, 0);
  const bare = onlyStoreAndKey(stage);
  assert.equal((await stage.understudy("point", "list", ...bare)).code, 4, "none is kept yet");
  const served = await stage.serve();
  const host = await captureDisk(served.desk, sizeBytes);
  await host.write(4096, Buffer.alloc(blockBytes, 0x51));
  const moment = await momentNow(served.desk);
  const { signal } = new AbortController();
  await served.desk.keepPoint(
    group,
    {
      id: "point-00000001",
      at: moment.at,
      sequence: moment.sequence,
      journalPosition: 12,
      consistency: "crash",
      site: "east",
      resources: 1,
      volumes: { "vol-east": volume },
      configuration: packConfiguration([{ kind: "volume", id: "vol-east" }]),
    },
    signal,
  );
  await served.desk.keepVerdict(
    group,
    { id: "point-00000001", at: moment.at },
    { at: 99, summary: "whole" },
    signal,
  );
  await host.write(4096, Buffer.alloc(blockBytes, 0x52));
  await host[Symbol.asyncDispose]();
  await served.kill();
  rmSync(join(stage.folder, "vd"), { recursive: true });
  rmSync(join(stage.folder, "understudy.yaml"));

  const listed = await stage.understudy("point", "list", "--json", ...bare);
  assert.equal(listed.code, 0, listed.stderr);
  const { environment, points } = JSON.parse(listed.stdout.toString()) as {
    environment: string;
    points: readonly {
      id: string;
      verifiedAt: number;
      disks: Record<string, string>;
      configuration: object[];
    }[];
  };
  const [point] = points;
  assert.deepEqual([environment, point?.id, point?.verifiedAt], [group, "point-00000001", 99]);
  assert.deepEqual(point?.configuration, [{ kind: "volume", id: "vol-east" }]);
  const shown = await stage.understudy("point", "show", "point-00000001", group, ...bare);
  assert.match(shown.stdout.toString(), /after command 12/u);
  assert.equal((await stage.understudy("point", "show", "point-none", group, ...bare)).code, 4);
  const environments = await stage.vault("environments", ...bare);
  assert.match(environments.stdout.toString(), /shop +1 /u);
  const cat = await stage.vault("cat", point?.disks[volume] ?? "", ...bare);
  assert.equal(cat.stdout[4096], 0x51, cat.stderr);
});
