/** A guest's console: the file that QEMU appends to, and lines of those who keep it among what the guest prints. */
import { appendFileSync, closeSync, fstatSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import type { Machine } from "#hypervisor/machine.ts";
import { machineFiles } from "#hypervisor/plan-command-line.ts";

const CONSOLE_BYTES = 64 * 1024;

function consoleOf(machine: Machine): string {
  return join(machine.folder, machineFiles.consoleLog);
}

/** A line of the speaker's own among what the guest prints: QEMU appends to the same file. */
export function tell(machine: Machine, speaker: string, text: string): void {
  appendFileSync(consoleOf(machine), `[${speaker}] ${text}\n`, { mode: 0o600 });
}

/** The end of it. */
export function consoleTail(machine: Machine): Buffer {
  let file: number;
  try {
    file = openSync(consoleOf(machine), "r");
  } catch {
    // It has not printed anything yet.
    return Buffer.alloc(0);
  }
  try {
    const { size } = fstatSync(file);
    const buffer = Buffer.alloc(Math.min(size, CONSOLE_BYTES));
    return buffer.subarray(0, readSync(file, buffer, 0, buffer.length, size - buffer.length));
  } finally {
    closeSync(file);
  }
}
