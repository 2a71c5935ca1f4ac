/** The small guest: Debian's cloud kernel and an initramfs of busybox, a few modules and the files of `root/`. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { OperationalError } from "#kernel/errors.ts";
import { fetchGuestPackages, type GuestPackages } from "./fetch-guest-packages.ts";
import { type ArchiveEntry, encodeNewc } from "./newc-archive.ts";

const run = promisify(execFile);

export interface GuestImage {
  readonly kernelPath: string;
  readonly initrdPath: string;
  readonly kernelVersion: string;
  /** Of kernel and initramfs together: equal images have equal ones. */
  readonly digest: string;
}

/** In this order: each needs those before it. All but the last two are loaded before the first line of the guest's own. */
const BOOT_MODULES = [
  "drivers/virtio/virtio_ring",
  "drivers/virtio/virtio",
  "drivers/virtio/virtio_pci_modern_dev",
  "drivers/virtio/virtio_pci_legacy_dev",
  "drivers/virtio/virtio_pci",
  "drivers/block/virtio_blk",
  "net/core/failover",
  "drivers/net/net_failover",
  "drivers/net/virtio_net",
  "drivers/char/virtio_console",
  "drivers/acpi/button",
  "drivers/input/evdev",
];
const LATER_MODULES = ["drivers/cdrom/cdrom", "fs/isofs/isofs"];
const MANIFEST = "manifest.json";

/** `$UNDERSTUDY_GUEST_IMAGE`, else below `$XDG_CACHE_HOME`, else below the home folder's cache. */
export function guestImageFolder(env: NodeJS.ProcessEnv = process.env): string {
  if (env["UNDERSTUDY_GUEST_IMAGE"]) return env["UNDERSTUDY_GUEST_IMAGE"];
  return join(env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "understudy", "guest");
}

/** Null when none was built there. */
export async function readGuestImage(folder: string = guestImageFolder()): Promise<GuestImage | null> {
  try {
    const image = JSON.parse(await readFile(join(folder, MANIFEST), "utf8")) as GuestImage;
    await Promise.all([stat(image.kernelPath), stat(image.initrdPath)]);
    return image;
  } catch {
    return null;
  }
}

export interface BuildOptions {
  readonly folder?: string;
  readonly progress: (line: string) => void;
  readonly signal?: AbortSignal;
}

/**
 * Builds it, or leaves the one that is there when it would be the same. The image is complete when its manifest is there.
 * Errors: `machine.refused` when the packages cannot be had.
 */
export async function buildGuestImage(options: BuildOptions): Promise<GuestImage> {
  const folder = options.folder ?? guestImageFolder();
  await mkdir(folder, { recursive: true });
  const packages = await fetchGuestPackages({ ...options, cacheFolder: folder });
  const kernel = await readFile(packages.kernelPath);
  const initrd = encodeNewc(await guestEntries(packages));
  const digest = createHash("sha256").update(kernel).update(initrd).digest("hex");
  const present = await readGuestImage(folder);
  if (present?.digest === digest) {
    options.progress(`the guest image in ${folder} is up to date`);
    return present;
  }
  // Named for their content: a machine that was planned with the files of an older build keeps them.
  const short = digest.slice(0, 12);
  const image: GuestImage = {
    kernelPath: join(folder, `vmlinuz-${short}`),
    initrdPath: join(folder, `initramfs-${short}.cpio`),
    kernelVersion: packages.kernelVersion,
    digest,
  };
  await writeDurably(image.kernelPath, kernel);
  await writeDurably(image.initrdPath, initrd);
  await writeDurably(join(folder, MANIFEST), Buffer.from(`${JSON.stringify(image, null, 2)}\n`));
  options.progress(`guest image: ${image.kernelPath}, ${image.initrdPath} (${initrd.length} bytes)`);
  return image;
}

async function guestEntries(packages: GuestPackages): Promise<ArchiveEntry[]> {
  const folders = ["bin", "dev", "proc", "sys", "tmp", "root", "run", "disks", "seed", "etc", "lib/modules"];
  const applets = (await run(packages.busyboxPath, ["--list"])).stdout.split("\n").filter(Boolean);
  const modules = await Promise.all(
    [...BOOT_MODULES, ...LATER_MODULES].map(async (path) => ({
      path: `lib/modules/${basename(path)}.ko`,
      content: await readModule(join(packages.modulesPath, `${path}.ko`)),
    })),
  );
  const own = await ownFiles(join(import.meta.dirname, "root"), "");
  const entries: ArchiveEntry[] = [
    ...own,
    // The kernel opens it for init before any file system is mounted.
    { path: "dev/console", kind: "character_device", device: [5, 1] },
    { path: "bin/busybox", kind: "file", mode: 0o755, content: await readFile(packages.busyboxPath) },
    ...applets
      .filter((name) => name !== "busybox" && !own.some(({ path }) => path === `bin/${name}`))
      .map((name): ArchiveEntry => ({ path: `bin/${name}`, kind: "link", content: "busybox" })),
    ...modules.map((module): ArchiveEntry => ({ ...module, kind: "file" })),
    {
      path: "lib/modules/order",
      kind: "file",
      content: BOOT_MODULES.map((path) => `${basename(path)}\n`).join(""),
    },
  ];
  return [
    ...foldersOf([...folders.map((path) => `${path}/`), ...entries.map(({ path }) => path)]),
    ...entries,
  ];
}

/** Every folder that the paths lie in, outer ones first. */
function foldersOf(paths: readonly string[]): ArchiveEntry[] {
  const folders = new Set<string>();
  for (const path of paths) {
    const parts = path.split("/").slice(0, -1);
    for (let depth = 1; depth <= parts.length; depth++) folders.add(parts.slice(0, depth).join("/"));
  }
  return Array.from(folders)
    .sort()
    .map((path) => ({ path, kind: "folder" }));
}

async function ownFiles(folder: string, prefix: string): Promise<ArchiveEntry[]> {
  const entries: ArchiveEntry[] = [];
  for (const item of await readdir(folder, { withFileTypes: true })) {
    const path = `${prefix}${item.name}`;
    if (item.isDirectory()) entries.push(...(await ownFiles(join(folder, item.name), `${path}/`)));
    else {
      const content = await readFile(join(folder, item.name));
      // By content, not by permission bits: a checkout need not keep those.
      const mode = content.subarray(0, 2).toString() === "#!" ? 0o755 : 0o644;
      entries.push({ path, kind: "file", mode, content });
    }
  }
  return entries;
}

/** Debian 12 has plain modules; later releases compress them. */
async function readModule(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new OperationalError("machine.refused", `the kernel package has no ${path}`, { cause: error });
  }
}

async function writeDurably(path: string, content: Uint8Array): Promise<void> {
  const file = await open(`${path}.new`, "w", 0o644);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
}
