/** A volume's file as a writable NBD export, by a qemu-nbd of its own that outlives this process. */
import { execFile } from "node:child_process";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import {
  argumentsOf,
  identifyProcess,
  killProcess,
  type ProcessIdentity,
  stillRuns,
} from "#hypervisor/process-identity.ts";
import { readFileIfAny } from "#kernel/durable-file.ts";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { formatNbdUri } from "#wire/nbd/nbd-uri.ts";

const POLL_MS = 10;
const END_LIMIT_MS = 10_000;

export interface ExportedFile {
  readonly folder: string;
  /** The file's name is `NAME.qcow2`, the socket's `NAME.nbd`. */
  readonly name: string;
}

/** As clients reach it. */
export function exportUri({ folder, name }: ExportedFile): string {
  return formatNbdUri({
    address: { kind: "unix", path: join(folder, `${name}.nbd`) },
    exportName: name,
    tls: false,
  });
}

/**
 * Serves when it returns; one that is served already goes on. `credentials`: arguments for what the file's header needs. Errors:
 * `machine.refused` with qemu-nbd's own words.
 */
export async function startExport(
  file: ExportedFile,
  credentials: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  if ((await findExport(file)) !== null) return;
  const { folder, name } = file;
  await rm(join(folder, `${name}.nbd`), { force: true });
  try {
    await promisify(execFile)(
      "qemu-nbd",
      [
        "--fork",
        ...credentials,
        `--pid-file=${name}.nbd.pid`,
        // It takes absolute names only, and a Unix socket's name has at most 107 bytes: the short name of the same folder.
        `--socket=/proc/self/cwd/${name}.nbd`,
        `--export-name=${name}`,
        "--persistent",
        "--shared=8",
        "--format=qcow2",
        "--discard=unmap",
        "--detect-zeroes=unmap",
        `${name}.qcow2`,
      ],
      // Nothing of our own environment but the way to programs.
      { cwd: folder, signal, env: { PATH: process.env["PATH"] ?? "/usr/bin:/bin" } },
    );
  } catch (error) {
    signal.throwIfAborted();
    const { code, stderr } = error as { code?: unknown; stderr?: string };
    throw new OperationalError(
      "machine.refused",
      code === "ENOENT"
        ? "qemu-nbd is missing: apt-get install qemu-utils"
        : `qemu-nbd cannot serve volume ${name}: ${(stderr ?? "").trim()}`,
      { cause: error },
    );
  }
}

/** What was written is in the file when it returns. Not served: nothing. */
export async function endExport(file: ExportedFile, clock: Clock): Promise<void> {
  const found = await findExport(file);
  if (found !== null) {
    const deadline = clock.monotonicMs() + END_LIMIT_MS;
    await killProcess(found, "SIGTERM");
    while (await stillRuns(found)) {
      if (clock.monotonicMs() > deadline) {
        throw new OperationalError("machine.failing", `the export of ${file.name} does not end`, {
          outcome: "unknown",
        });
      }
      await clock.sleep(POLL_MS);
    }
  }
  await rm(join(file.folder, `${file.name}.nbd`), { force: true });
  await rm(join(file.folder, `${file.name}.nbd.pid`), { force: true });
}

async function findExport({ folder, name }: ExportedFile): Promise<ProcessIdentity | null> {
  const text = (await readFileIfAny(join(folder, `${name}.nbd.pid`)))?.trim() ?? "";
  if (!/^[1-9][0-9]*$/.test(text)) return null;
  const identity = await identifyProcess(Number(text));
  if (identity === null) return null;
  return (await argumentsOf(identity.pid)).includes(`--export-name=${name}`) ? identity : null;
}
