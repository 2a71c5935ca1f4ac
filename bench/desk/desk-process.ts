// The vault's desk as a process of its own, its store at a distance: so many bytes a second in all, and a wait before each answer.
// Arguments: folder, MB/s (0: no limit), milliseconds of waiting.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { Secret } from "#kernel/secret.ts";
import { openDesk } from "#recovery/desk/open-desk.ts";
import { serveDesk } from "#recovery/desk/serve-desk.ts";
import { initVault, openVault } from "#vault/open-vault.ts";
import type { BlobStorage } from "#vault/storage/blob-storage.ts";
import { openFolderStorage } from "#vault/storage/folder-storage.ts";

const [folder = "", rate = "0", wait = "0"] = process.argv.slice(2);

function distant(inner: BlobStorage, bytesPerSecond: number, waitMs: number): BlobStorage {
  let freeAt = 0;
  return {
    description: inner.description,
    put: (name, parts, signal) => inner.put(name, parts, signal),
    size: (name, signal) => inner.size(name, signal),
    list: (prefix, signal) => inner.list(prefix, signal),
    delete: (name, signal) => inner.delete(name, signal),
    close: () => inner.close(),
    async get(name, range, signal) {
      const bytes = await inner.get(name, range, signal);
      const now = performance.now();
      // One line for all: who asks while it is busy stands behind.
      freeAt = Math.max(now, freeAt) + (bytesPerSecond === 0 ? 0 : (bytes.length / bytesPerSecond) * 1000);
      const dueMs = freeAt + waitMs - now;
      if (dueMs >= 1) await new Promise((resolve) => setTimeout(resolve, dueMs));
      return bytes;
    },
  };
}

const isNew = !existsSync(join(folder, "store"));
const folderStorage = await openFolderStorage(join(folder, "store"));
const unlock = { passphrase: new Secret("correct horse battery staple") };
if (isNew) {
  await using _made = await initVault({ storage: folderStorage, unlock, scrypt: { N: 1024, r: 8, p: 1 } });
}
const vault = await openVault({
  storage: distant(folderStorage, Number(rate) * 1e6, Number(wait)),
  unlock,
});
const data = join(folder, "desk");
const desk = await openDesk({
  folder: data,
  vault,
  clock: systemClock,
  log: silentLog,
  window: { windowMs: 3_600_000, windowBytes: 20 * 2 ** 30 },
  foldEveryMs: 1000,
  // What the guest of the `live` bench reads when it starts.
  priorities: [{ path: "/*-wanted", weight: 1 }],
});
const served = await serveDesk(desk, data, silentLog);
console.log("ready");
process.once("SIGTERM", () => {
  void (async () => {
    await served[Symbol.asyncDispose]();
    await desk[Symbol.asyncDispose]();
    await vault[Symbol.asyncDispose]();
    process.exit(0);
  })();
});
