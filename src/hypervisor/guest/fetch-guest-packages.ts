/** The Debian packages that the small guest is made of: those installed here, else downloaded and unpacked without root. */
import { execFile } from "node:child_process";
import { access, constants, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { OperationalError } from "#kernel/errors.ts";

const run = promisify(execFile);

export interface GuestPackages {
  readonly kernelVersion: string;
  readonly kernelPath: string;
  /** The folder `kernel` of the kernel's modules. */
  readonly modulesPath: string;
  /** A static busybox that also runs on this machine. */
  readonly busyboxPath: string;
}

export interface FetchOptions {
  /** Downloaded packages and their content; kept. */
  readonly cacheFolder: string;
  readonly progress: (line: string) => void;
  readonly signal?: AbortSignal;
}

const FLAVOUR = "-cloud-amd64";

/** Errors: `machine.refused` when neither is possible; the message says what to install. */
export async function fetchGuestPackages(options: FetchOptions): Promise<GuestPackages> {
  const installed = await findPackages("/");
  if (installed !== null) {
    options.progress(`kernel ${installed.kernelVersion} and busybox: as installed`);
    return installed;
  }
  const unpacked = join(options.cacheFolder, "unpacked");
  const kept = await findPackages(unpacked);
  if (kept !== null) {
    options.progress(`kernel ${kept.kernelVersion} and busybox: from the cache`);
    return kept;
  }
  await download(options, unpacked);
  const fetched = await findPackages(unpacked);
  if (fetched === null) throw refused("the downloaded packages hold no kernel, modules or busybox");
  return fetched;
}

/** What lies below `root`; null unless it is all there and may be read. */
async function findPackages(root: string): Promise<GuestPackages | null> {
  const versions = await readdir(join(root, "lib/modules")).catch(() => []);
  const kernelVersion = versions
    .filter((name) => name.endsWith(FLAVOUR))
    .sort((a, b) => a.localeCompare(b, "en", { numeric: true }))
    .at(-1);
  if (kernelVersion === undefined) return null;
  const found = {
    kernelVersion,
    kernelPath: join(root, `boot/vmlinuz-${kernelVersion}`),
    modulesPath: join(root, "lib/modules", kernelVersion, "kernel"),
    busyboxPath: "",
  };
  const busyboxes = ["bin/busybox", "usr/bin/busybox"].map((path) => join(root, path));
  for (const busyboxPath of busyboxes) {
    try {
      // Ubuntu's kernel file is for root alone: then the download serves.
      for (const path of [found.kernelPath, found.modulesPath]) await access(path, constants.R_OK);
      if (await isStatic(busyboxPath)) return { ...found, busyboxPath };
    } catch {
      continue;
    }
  }
  return null;
}

/**
 * The plain `busybox` package is linked dynamically and cannot run in an initramfs without libraries. A static program has
 * no interpreter segment: type 3 in the table of program headers (System V ABI, chapter 5).
 */
async function isStatic(path: string): Promise<boolean> {
  const elf = await readFile(path);
  const tableOffset = Number(elf.readBigUInt64LE(32));
  const entrySize = elf.readUInt16LE(54);
  const entries = elf.readUInt16LE(56);
  for (let index = 0; index < entries; index++) {
    if (elf.readUInt32LE(tableOffset + index * entrySize) === 3) return false;
  }
  return true;
}

async function download(options: FetchOptions, unpacked: string): Promise<void> {
  const folder = join(options.cacheFolder, "packages");
  await rm(unpacked, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await mkdir(unpacked, { recursive: true });
  try {
    const kernelPackage = await newestKernelPackage(options.signal);
    options.progress(`downloading ${kernelPackage} and busybox-static (about 28 MB) ...`);
    await run("apt-get", ["download", kernelPackage, "busybox-static"], {
      cwd: folder,
      ...(options.signal && { signal: options.signal }),
    });
    for (const name of await readdir(folder)) {
      if (!name.endsWith(".deb")) continue;
      options.progress(`unpacking ${name} ...`);
      await run("dpkg-deb", ["-x", join(folder, name), unpacked], {
        ...(options.signal && { signal: options.signal }),
      });
    }
  } catch (error) {
    if (error instanceof OperationalError) throw error;
    throw refused((error as { stderr?: string }).stderr ?? String(error));
  }
}

async function newestKernelPackage(signal: AbortSignal | undefined): Promise<string> {
  const { stdout } = await run("apt-cache", ["depends", "linux-image-cloud-amd64"], {
    ...(signal && { signal }),
  });
  const name = /Depends: (linux-image-\S+-cloud-amd64)/.exec(stdout)?.[1];
  if (name === undefined) throw refused("the package lists know no linux-image-cloud-amd64");
  return name;
}

function refused(detail: string): OperationalError {
  return new OperationalError(
    "machine.refused",
    "the small guest's kernel and busybox are not to be had: on Debian, " +
      "`apt-get update` once and repeat, or `apt-get install linux-image-cloud-amd64 busybox-static`",
    { detail },
  );
}
