import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { Secret } from "#kernel/secret.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { LEASE_MS, SKEW_MS } from "#vault/leases.ts";
import { type Vault, initVault, openVault } from "#vault/open-vault.ts";
import { openFolderStorage } from "#vault/storage/folder-storage.ts";

const rounds = Number(process.env["VAULT_KILL_ROUNDS"] ?? 8);
const seed = Number(process.env["VAULT_KILL_SEED"] ?? 1);
const unlock = { passphrase: new Secret("kill") };
const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");

interface Told {
  readonly number?: number;
  readonly pending?: string;
  readonly committed?: string;
}

/** Runs a writer and kills it at its n-th operation of the store. Returns what it told, in order. */
async function runAndKill(folder: string, image: string, writerSeed: number, at: number): Promise<Told[]> {
  const script = new URL("./writer-process.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [script, folder, image, String(writerSeed)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const gone = once(child, "exit");
  const told: Told[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    const one = JSON.parse(line) as Told;
    told.push(one);
    if ((one.number ?? 0) >= at) child.kill("SIGKILL");
  }
  const [, signal] = (await gone) as [number | null, string | null];
  assert.equal(signal, "SIGKILL", "the writer does not end by itself");
  return told;
}

/** Every point that the writer called committed is there; every point that is there is whole, and is a disk that was to be kept. */
async function checkPoints(
  vault: Vault,
  back: string,
  committed: ReadonlySet<string>,
  kept: ReadonlySet<string>,
): Promise<void> {
  const points = await vault.listPoints("disk");
  const ids = new Set<string>(points.map(({ id }) => id));
  for (const id of committed) assert.ok(ids.has(id), `${id} was committed and is not listed`);
  for (const { id } of points) {
    await vault.restoreToFile(id, back, { lease: "none", sync: false });
    assert.ok(kept.has(sha256(await readFile(back))), `${id} is not what any disk was`);
  }
}

test(`a writer killed ${rounds} times at any operation of the store: no committed point is missing, none is torn`, async () => {
  const folder = await mkdtemp(join(tmpdir(), "vault-kill-"));
  try {
    const [store, image, back] = ["store", "image", "back"].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    await writeFile(image, Buffer.alloc(3 * 1024 * 1024 + 777, "a quiet disk "));
    const storage = await openFolderStorage(store);
    await (await initVault({ storage, unlock }))[Symbol.asyncDispose]();
    const random = createSeededRandom(seed);
    const [committed, kept] = [new Set<string>(), new Set<string>()];
    for (let round = 0; round < rounds; round += 1) {
      const at = 1 + Math.floor(random.fraction() * 60);
      for (const told of await runAndKill(store, image, seed * 1000 + round, at)) {
        if (told.pending !== undefined) kept.add(told.pending);
        if (told.committed !== undefined) committed.add(told.committed);
      }
      const vault = await openVault({ storage, unlock, threads: 0 });
      await checkPoints(vault, back, committed, kept);
      await vault[Symbol.asyncDispose]();
    }
    assert.ok(kept.size > 0);
    // Much later, when all leases of the dead have run out.
    let ahead = LEASE_MS + 2 * SKEW_MS;
    const clock = { ...systemClock, now: () => Date.now() + ahead };
    const vault = await openVault({ storage, unlock, threads: 0, clock });
    await vault.collectGarbage();
    ahead += 2 * SKEW_MS;
    assert.deepEqual((await vault.collectGarbage()).waiting, []);
    assert.equal((await vault.collectGarbage()).condemnedPacks, 0);
    await checkPoints(vault, back, committed, kept);
    assert.deepEqual((await vault.verify({ depth: "full" })).findings, []);
    await vault[Symbol.asyncDispose]();
    await storage.close();
  } finally {
    await rm(folder, { recursive: true });
  }
});
