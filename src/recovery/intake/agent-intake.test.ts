import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import type { BlockDevice } from "#model/block-device.ts";
import { openNbdClient } from "#nbd/nbd-client.ts";
import { openDesk } from "#recovery/desk/open-desk.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import { BLOCK_BYTES } from "#vault/block-ref.ts";
import { initVault } from "#vault/open-vault.ts";
import { openFolderStorage } from "#vault/storage/folder-storage.ts";
import { decodeLeafRuns, leafOf } from "#wire/agent/leaf-runs.ts";
import { encodePart, passBlockBytes, type PassEnd, type PassRecord } from "#wire/agent/pass-part.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";
import { AgentIntake, type AgentRights, type IntakePorts } from "./agent-intake.ts";

const { signal } = new AbortController();
const sizeBytes = 4 * passBlockBytes + 4096;
const rights: AgentRights = { name: "web", environment: "shop", volumes: ["vol-a", "vol-b"] };
const volumes = [
  { volume: "vol-a", sizeBytes },
  { volume: "vol-b", sizeBytes },
];
const stream = "a".repeat(32);

interface Bench {
  readonly folder: string;
  readonly desk: VaultDesk;
  readonly ports: IntakePorts;
  readonly read: (volume: string, atMs: number | null) => Promise<Buffer>;
}

async function withVault(
  work: (bench: Bench) => Promise<void>,
  options: { readonly stageLimitBytes?: number } = {},
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "understudy-intake-"));
  try {
    const storage = await openFolderStorage(join(folder, "store"));
    const unlock = { passphrase: new Secret("correct horse") };
    await using vault = await initVault({ storage, unlock, threads: 0, scrypt: { N: 1024, r: 8, p: 1 } });
    await using desk = await openDesk({
      folder: join(folder, "data"),
      vault,
      clock: systemClock,
      log: silentLog,
      window: { windowMs: 3_600_000, windowBytes: 2 ** 30 },
      foldEveryMs: 3_600_000,
    });
    const openDisk = (uri: string): Promise<BlockDevice> => {
      const { address, exportName } = parseNbdUri(uri);
      const ports = { clock: systemClock, random: systemRandom, log: silentLog };
      return openNbdClient({ ...ports, address, exportName }, signal);
    };
    const ports: IntakePorts = {
      folder: join(folder, "intake"),
      desk,
      keys: vault.context.keys,
      openDisk,
      clock: systemClock,
      log: silentLog,
      stageLimitBytes: options.stageLimitBytes ?? 2 ** 30,
    };
    const read = async (volume: string, atMs: number | null): Promise<Buffer> => {
      const moment = await desk.moment("shop", atMs, signal);
      await using disk = await openDisk((await desk.serve("shop", volume, moment, signal)).uri);
      return await disk.read(0, disk.sizeBytes);
    };
    await work({ folder, desk, ports, read });
    await storage.close();
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const crashEnd = (instantMs: number): PassEnd => ({ instantMs, consistency: "crash", reason: null });

function part(
  number: number,
  pass: number,
  records: readonly PassRecord[],
  end: PassEnd | null = null,
): Buffer {
  return encodePart({ header: { stream, number, pass, volumes, end }, records });
}

const write = (volume: number, block: number, data: Buffer): PassRecord => ({
  volume,
  offset: block * passBlockBytes,
  length: data.length,
  data,
});

test("blocks are the vault's own", () => {
  assert.equal(passBlockBytes, BLOCK_BYTES);
});

test("a pass over two disks is one moment, of its own instant; until it ends the one before stays", () =>
  withVault(async ({ desk, ports, read }) => {
    await using intake = await AgentIntake.open(rights, ports);
    await intake.begin(stream, null, volumes);
    const [one, two, three] = [1, 2, 3].map((fill) => Buffer.alloc(passBlockBytes, fill));
    assert.ok(one && two && three);
    const at = Date.now() - 5000;
    await intake.takePart(part(1, 1, [write(0, 0, one)]));
    await assert.rejects(desk.moment("shop", null, signal), (error) => isOperational(error, "not_found"));
    await intake.takePart(part(2, 1, [write(1, 1, two)], crashEnd(at)));
    assert.equal((await desk.moment("shop", null, signal)).at, at);
    // Half of the next pass.
    await intake.takePart(part(3, 2, [write(0, 0, three)]));
    assert.ok((await read("vol-a", null)).subarray(0, passBlockBytes).equals(one));
    // A pass that found nothing changed is a moment too.
    await intake.takePart(part(4, 2, [], crashEnd(at + 1000)));
    assert.equal((await desk.moment("shop", null, signal)).at, at + 1000);
    assert.ok((await read("vol-a", null)).subarray(0, passBlockBytes).equals(three));
    assert.ok((await read("vol-b", null)).subarray(passBlockBytes, 2 * passBlockBytes).equals(two));
    assert.ok((await read("vol-a", at)).subarray(0, passBlockBytes).equals(one));
    await assert.rejects(desk.moment("shop", at - 1, signal), (error) => isOperational(error, "not_found"));
  }));

test("a part counts once, however often it comes, and none may be left out", () =>
  withVault(async ({ desk, ports }) => {
    await using intake = await AgentIntake.open(rights, ports);
    await intake.begin(stream, null, volumes);
    const first = part(1, 1, [write(0, 0, randomBytes(100))], crashEnd(1000));
    const { received, point } = await intake.takePart(first);
    assert.deepEqual([received, point?.pass, point?.instantMs], [1, 1, 1000]);
    const { folded: _folded, ...before } = { folded: 0, ...(await desk.moment("shop", null, signal)) };
    assert.deepEqual(await intake.takePart(first), { received: 1, point });
    assert.deepEqual(await desk.moment("shop", null, signal), before);
    await assert.rejects(intake.takePart(part(3, 2, [])), (error) => isOperational(error, "not_found"));
    assert.equal((await intake.standing(stream)).received, 1);
  }));

test("a fuzzy pass is no moment; what it brought counts for the next one", () =>
  withVault(async ({ ports, read }) => {
    await using intake = await AgentIntake.open(rights, ports);
    await intake.begin(stream, null, volumes);
    const [old, young] = [Buffer.alloc(500, 1), Buffer.alloc(500, 2)];
    await intake.takePart(part(1, 1, [write(0, 0, old)], crashEnd(1000)));
    const fuzzy: PassEnd = { instantMs: 2000, consistency: "fuzzy", reason: "nobody held it" };
    await intake.takePart(part(2, 2, [write(0, 0, young)], fuzzy));
    assert.ok((await read("vol-a", null)).subarray(0, 500).equals(old));
    await intake.takePart(part(3, 3, [], crashEnd(3000)));
    assert.ok((await read("vol-a", null)).subarray(0, 500).equals(young));
  }));

test("what was staged is there after a restart; a pass that had come whole is taken in without its agent", () =>
  withVault(async ({ ports, desk, read, folder }) => {
    const data = randomBytes(passBlockBytes);
    let broken = false;
    const failing: IntakePorts = {
      ...ports,
      openDisk: async (uri) => {
        if (broken) throw new OperationalError("store.full", "no room for the log");
        return ports.openDisk(uri, signal);
      },
    };
    {
      await using intake = await AgentIntake.open(rights, failing);
      await intake.begin(stream, null, volumes);
      await intake.takePart(part(1, 1, [write(0, 0, data)]));
      broken = true;
      // The end is durable here, and could not be taken in.
      const end = part(2, 1, [write(1, 2, data)], crashEnd(5000));
      await assert.rejects(intake.takePart(end), (error) => isOperational(error, "store.full"));
      assert.equal((await intake.standing(stream)).received, 2);
    }
    const files = await readdir(join(folder, "intake", "web", "parts"));
    assert.deepEqual(files, ["000000000000001.part", "000000000000002.part"]);
    broken = false;
    await using intake = await AgentIntake.open(rights, failing);
    assert.equal((await desk.moment("shop", null, signal)).at, 5000);
    assert.ok((await read("vol-b", null)).subarray(2 * passBlockBytes, 3 * passBlockBytes).equals(data));
    const { received, point } = await intake.standing(stream);
    assert.deepEqual([received, point?.pass], [2, 1]);
    assert.deepEqual(await readdir(join(folder, "intake", "web", "parts")), []);
  }));

test("a pass that is larger than the stage goes on into the log, and is a moment when it has ended", () =>
  withVault(
    async ({ ports, desk, read }) => {
      await using intake = await AgentIntake.open(rights, ports);
      await intake.begin(stream, null, volumes);
      const blocks = [0, 1, 2, 3].map(() => randomBytes(passBlockBytes));
      await intake.takePart(part(1, 1, [], crashEnd(1000)));
      for (const [index, data] of blocks.entries())
        await intake.takePart(part(2 + index, 2, [write(0, index, data)]));
      const kept = await desk.volumes("shop", signal);
      assert.equal(kept.find(({ volume }) => volume === "vol-a")?.state, "synchronising");
      await intake.takePart(part(6, 2, [], crashEnd(2000)));
      assert.equal((await desk.moment("shop", null, signal)).at, 2000);
      assert.ok((await read("vol-a", null)).subarray(0, 4 * passBlockBytes).equals(Buffer.concat(blocks)));
    },
    { stageLimitBytes: passBlockBytes + 1000 },
  ));

test("hashes are those of what the vault holds", () =>
  withVault(async ({ ports }) => {
    await using intake = await AgentIntake.open(rights, ports);
    await intake.begin(stream, null, volumes);
    const data = randomBytes(passBlockBytes);
    const tail = randomBytes(4096);
    await intake.takePart(part(1, 1, [write(0, 1, data), write(0, 4, tail)], crashEnd(1)));
    const leaves = decodeLeafRuns(await intake.leaves(stream, "vol-a", 0, 7), 7);
    assert.deepEqual(leaves, [
      { blocks: 1, leaves: null },
      { blocks: 1, leaves: leafOf(data) },
      { blocks: 2, leaves: null },
      { blocks: 1, leaves: leafOf(tail) },
      { blocks: 2, leaves: null },
    ]);
  }));

test("a new stream takes the old one's place, and forgets what had not come whole", () =>
  withVault(async ({ ports, read, desk }) => {
    await using intake = await AgentIntake.open(rights, ports);
    await intake.begin(stream, null, volumes);
    const data = Buffer.alloc(100, 7);
    await intake.takePart(part(1, 1, [write(0, 0, data)], crashEnd(1000)));
    await intake.takePart(part(2, 2, [write(0, 0, Buffer.alloc(100, 8))]));
    const other = "b".repeat(32);
    await intake.begin(other, null, volumes.slice(0, 1));
    await assert.rejects(intake.takePart(part(3, 2, [])), (error) => isOperational(error, "state.conflict"));
    await assert.rejects(intake.standing(stream), (error) => isOperational(error, "state.conflict"));
    const header = { stream: other, number: 1, pass: 1, volumes: volumes.slice(0, 1), end: crashEnd(3000) };
    await intake.takePart(encodePart({ header, records: [] }));
    assert.ok((await read("vol-a", null)).subarray(0, 100).equals(data));
    // What is not sent any more has no part in the moments that come.
    assert.deepEqual(
      (await desk.volumes("shop", signal)).map(({ volume }) => volume),
      ["vol-a"],
    );
  }));

test("after the environment has moved, nothing is taken, and no stream of before begins again", () =>
  withVault(async ({ ports, desk }) => {
    await using intake = await AgentIntake.open(rights, ports);
    await intake.begin(stream, null, volumes);
    await intake.takePart(part(1, 1, [], crashEnd(1000)));
    await desk.fence("shop", 3, signal);
    const fenced = (error: unknown): boolean => isOperational(error, "state.fenced");
    await assert.rejects(intake.takePart(part(2, 2, [], crashEnd(2000))), fenced);
    await assert.rejects(intake.begin("b".repeat(32), 0, volumes), fenced);
    assert.equal((await intake.standing(stream)).received, 1);
    assert.equal((await intake.begin("c".repeat(32), null, volumes)).epoch, 3);
  }));

test("volumes that are not the agent's cannot be begun, asked for or sent", () =>
  withVault(async ({ ports }) => {
    await using intake = await AgentIntake.open({ ...rights, volumes: ["vol-a"] }, ports);
    const forbidden = (error: unknown): boolean => isOperational(error, "auth.forbidden");
    assert.throws(() => intake.begin(stream, null, volumes), forbidden);
    await intake.begin(stream, null, volumes.slice(0, 1));
    assert.throws(() => intake.leaves(stream, "vol-b", 0, 1), forbidden);
    assert.throws(() => intake.takePart(part(1, 1, [], crashEnd(1))), forbidden);
  }));

test("what an agent has sent into another folder of the vault is not believed to be here", () =>
  withVault(async ({ desk, ports, read }) => {
    const [one, two] = [1, 2].map((fill) => Buffer.alloc(passBlockBytes, fill));
    assert.ok(one && two);
    {
      await using intake = await AgentIntake.open(rights, ports);
      await intake.begin(stream, null, volumes);
      await intake.takePart(part(1, 1, [write(0, 0, one)], crashEnd(Date.now() - 2000)));
      // A pass that came whole, and was not taken in yet when the folder was lost.
      await intake.takePart(part(2, 2, [write(1, 0, one)]));
    }
    // As a desk says it whose folder was lost: the intake's own was not.
    const moved: VaultDesk = {
      ...desk,
      protect: async (...asked) => ({ ...(await desk.protect(...asked)), history: "0123456789abcdef" }),
      status: async (...asked) => {
        const status = await desk.status(...asked);
        return status && { ...status, history: "0123456789abcdef" };
      },
    };
    await using intake = await AgentIntake.open(rights, { ...ports, desk: moved });
    const next = part(3, 2, [write(1, 1, two)], crashEnd(Date.now()));
    await assert.rejects(intake.takePart(next), { code: "not_found" });
    await assert.rejects(intake.leaves(stream, "vol-a", 0, 1), { code: "not_found" });
    assert.ok(
      (await read("vol-b", null)).every((byte) => byte === 0),
      "nothing of it was taken in",
    );
    const again = await intake.begin(stream, null, volumes);
    assert.equal(again.received, 0, "it begins from the start");
    await intake.takePart(part(1, 1, [write(1, 1, two)], crashEnd(Date.now())));
  }));
