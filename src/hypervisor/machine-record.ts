/** What is durable of a machine: what it is to be, and what was started for it. One file, replaced whole. */
import { join } from "node:path";
import { replaceFile } from "#kernel/durable-file.ts";
import type { MachineSpec, NbdLocation } from "./machine-spec.ts";
import { machineFiles } from "./plan-command-line.ts";
import type { ProcessIdentity } from "./process-identity.ts";
import { readVersioned } from "./read-versioned.ts";

/** `creating` and `destroying` are finished by whoever finds them. */
export type MachinePhase = "creating" | "present" | "destroying";

/** What was asked for. `off` also after the guest turned itself off. */
export type WantedPower = "on" | "paused" | "off";

export interface CaptureRecord {
  readonly target: NbdLocation;
  /** Where a resynchronisation writes; the same as `target` unless the target wants to tell them apart. */
  readonly resyncTarget: NbdLocation;
  readonly stallLimitMs: number;
  /** The bitmap that holds at least all that the target may lack; null before the first full copy began. */
  readonly bitmap: string | null;
  /** The target has had a full copy: from then on the bitmap says what it lacks. */
  readonly seeded: boolean;
  /** It is to end: whoever finds this ends what QEMU still mirrors, and then forgets the capture. */
  readonly ending?: true;
}

export interface CopyRecord {
  readonly bytesPerSecond: number;
}

export interface MachineRecord {
  readonly format: 1;
  readonly phase: MachinePhase;
  readonly uuid: string;
  readonly spec: MachineSpec;
  readonly power: WantedPower;
  /** Disks whose image was made: one that is missing since is lost, and not to be made again. Absent: none is known. */
  readonly made?: readonly string[];
  /** The QEMU that was started last, once it is known; its own lock on its pid file is what keeps a second one away. */
  readonly process: ProcessIdentity | null;
  /** Where the console log stood when it was started. */
  readonly consoleStart: number;
  /** The folder of the template that it goes on from at each start, instead of booting. */
  readonly template: string | null;
  readonly captures: Readonly<Record<string, CaptureRecord>>;
  /** Background copies that were asked for and are not complete. */
  readonly copies: Readonly<Record<string, CopyRecord>>;
}

const FORMAT = 1;

export async function writeRecord(folder: string, record: MachineRecord): Promise<void> {
  await replaceFile(join(folder, machineFiles.record), `${JSON.stringify(record, null, 2)}\n`);
}

/** Null: creation died before anything was durable. Errors: `store.version`, `store.failing`. */
export function readRecord(folder: string): Promise<MachineRecord | null> {
  return readVersioned<MachineRecord>(join(folder, machineFiles.record), FORMAT);
}
