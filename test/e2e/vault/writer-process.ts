// A process that writes points until it is killed: tells each step, so that the one who kills it can choose the moment.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync, writeSync } from "node:fs";
import { Secret } from "#kernel/secret.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { openFileSource } from "#vault/file-source.ts";
import { openVault } from "#vault/open-vault.ts";
import type { PointId } from "#vault/point-manifest.ts";
import { faultyStorage } from "#vault/storage/faulty-storage.ts";
import { openFolderStorage } from "#vault/storage/folder-storage.ts";

const [folder = "", image = "", seed = "0"] = process.argv.slice(2);
const random = createSeededRandom(Number(seed));
// Synchronously: what was told before the kill was told.
const tell = (line: object): void => void writeSync(1, `${JSON.stringify(line)}\n`);

const storage = faultyStorage(await openFolderStorage(folder), (operation, number) => {
  tell({ operation, number });
  return "none";
});
const vault = await openVault({ storage, unlock: { passphrase: new Secret("kill") }, threads: 2 });
const disk = readFileSync(image);
let base: PointId | undefined = (await vault.listPoints("disk")).at(-1)?.id;

/** The base's bytes may differ from the image, if the last process died between a change and its point: then all is read. */
let known = false;
for (;;) {
  const changed = Array.from({ length: 1 + Math.floor(random.fraction() * 20) }, () => {
    const length = Math.ceil(random.fraction() * 20_000);
    const offset = Math.floor(random.fraction() * (disk.length - length));
    Buffer.from(random.hex(length)).copy(disk, offset, 0, length);
    return { offset, length };
  });
  writeFileSync(image, disk);
  tell({ pending: createHash("sha256").update(disk).digest("hex") });
  await using source = await openFileSource(image);
  const point = await vault.writePoint({
    volumeId: "disk",
    sizeBytes: disk.length,
    source,
    ...(base === undefined ? {} : { base }),
    ...(base !== undefined && known ? { changed } : {}),
  });
  base = point.id;
  known = true;
  tell({ committed: point.id });
}
