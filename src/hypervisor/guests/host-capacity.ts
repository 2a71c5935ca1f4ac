/** What this host bears of guests, so that it refuses the next one instead of swapping. */
import { readFileSync } from "node:fs";
import { availableParallelism, freemem, totalmem } from "node:os";

const MIB = 1024 * 1024;
/** The rest is for everything else on the host. */
const SHARE_OF_MEMORY = 0.75;
/** Left free after a start. */
const RESERVE_MIB = 256;
/** 40 small guests on two cores answered in 41 ms: idle ones cost next to nothing. */
const GUESTS_PER_CPU = 24;

/** What QEMU needs beside the guest's memory: measured 162 MiB in all with a guest of 96 MiB. */
const QEMU_OVERHEAD_MIB = 72;

/** What the host gives for a guest with so much memory, in MiB. */
export function hostMemoryMiB(guestMiB: number): number {
  return guestMiB + QEMU_OVERHEAD_MIB;
}

export interface HostLimits {
  readonly memoryMiB: number;
  readonly guests: number;
}

/** `memoryMiB`: for all guests together; default: most of what the host has. */
export function hostLimits(memoryMiB?: number): HostLimits {
  return {
    memoryMiB: memoryMiB ?? Math.floor((totalmem() * SHARE_OF_MEMORY) / MIB),
    guests: GUESTS_PER_CPU * availableParallelism(),
  };
}

/** `guests`: the memory of each, in MiB. */
export function bearsGuests(limits: HostLimits, guests: readonly number[]): boolean {
  const sum = guests.reduce((total, each) => total + hostMemoryMiB(each), 0);
  return guests.length <= limits.guests && sum <= limits.memoryMiB;
}

/** Whether the host can give so much now without swapping, whoever else uses it. */
export function hasFreeMemory(guestMiB: number): boolean {
  return availableMiB() >= hostMemoryMiB(guestMiB) + RESERVE_MIB;
}

/** As the kernel estimates it (proc(5), `MemAvailable`): memory of caches can be given away. */
function availableMiB(): number {
  try {
    const kibibytes = /^MemAvailable:\s+([0-9]+) kB$/m.exec(readFileSync("/proc/meminfo", "latin1"))?.[1];
    if (kibibytes !== undefined) return Number(kibibytes) / 1024;
  } catch {
    // Not Linux.
  }
  return freemem() / MIB;
}
