// Our side of `bench/vault.ts`: one operation of the vault in a process of its own. Prints one line of JSON.
import { readFileSync } from "node:fs";
import { Secret } from "#kernel/secret.ts";
import { openFileSource } from "#vault/file-source.ts";
import { initVault, openVault } from "#vault/open-vault.ts";
import { openFolderStorage } from "#vault/storage/folder-storage.ts";

const [operation = "", folder = "", image = "", changesFile] = process.argv.slice(2);
const storage = await openFolderStorage(folder);
const options = { storage, unlock: { passphrase: new Secret("bench") } };
const vault = operation === "first" ? await initVault(options) : await openVault(options);
const points = await vault.listPoints("bench");
const last = points.at(-1);

function changes(): { readonly offset: number; readonly length: number }[] | undefined {
  return changesFile === undefined
    ? undefined
    : (JSON.parse(readFileSync(changesFile, "utf8")) as { offset: number; length: number }[]);
}

async function work(): Promise<object> {
  if (operation === "restore") {
    if (last === undefined) throw new Error("there is no point to restore");
    // The peers do not flush what they restore.
    return vault.restoreToFile(last.id, image, { sync: process.env["BENCH_SYNC"] === "1" });
  }
  await using source = await openFileSource(image);
  const changed = changes();
  const point = await vault.writePoint({
    volumeId: "bench",
    sizeBytes: source.sizeBytes,
    source,
    ...(last === undefined ? {} : { base: last.id }),
    ...(changed === undefined ? {} : { changed }),
  });
  return point.cost;
}

/**
 * As in a process that keeps its vault open: the threads exist, the index is read, another volume was written before, whole and as a
 * change of the same kind.
 */
if (operation === "changed" && last !== undefined) await warmUp();

async function warmUp(): Promise<void> {
  await using source = await openFileSource(image);
  const sizeBytes = Math.min(source.sizeBytes, 64 * 1024 * 1024);
  const { id } = await vault.writePoint({ volumeId: "warm", sizeBytes, source });
  const length = changes()?.[0]?.length ?? sizeBytes;
  const changed = Array.from({ length: sizeBytes / 2 / length }, (_, n) => ({
    offset: 2 * n * length,
    length,
  }));
  await vault.writePoint({ volumeId: "warm", sizeBytes, source, base: id, changed });
}

const start = performance.now();
const result = await work();
const milliseconds = performance.now() - start;
const peak = Number(/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1]) / 1024;
const { user, system } = process.cpuUsage();
console.log(JSON.stringify({ milliseconds, peakMiB: peak, cpuMs: (user + system) / 1000, result }));
await vault[Symbol.asyncDispose]();
await storage.close();
