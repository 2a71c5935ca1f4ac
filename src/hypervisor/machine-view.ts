/** A machine as those see it who work on what it has: its disks, its guest agent. */
import type { Clock } from "#kernel/clock.ts";
import type { Json } from "#kernel/json.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import type { JsonObject } from "#wire/qmp/qmp-message.ts";
import type { HostNotice } from "./host-notice.ts";
import type { MachineRecord } from "./machine-record.ts";
import type { MachineSpec } from "./machine-spec.ts";
import type { Accelerator } from "./plan-command-line.ts";
import type { QmpClient } from "./qmp-client.ts";

export interface MachineDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly accelerator: (signal?: AbortSignal) => Promise<Accelerator>;
  readonly notify: (notice: HostNotice) => void;
  /** Called between any two steps whose order matters; a test dies in it. */
  readonly checkpoint: (step: string) => void;
}

export type RecordPatch = Partial<Omit<MachineRecord, "format" | "uuid">>;

export interface MachineView {
  readonly id: string;
  readonly folder: string;
  readonly record: MachineRecord;
  readonly spec: MachineSpec;
  readonly deps: MachineDeps;
  readonly isOn: boolean;
  /** Errors: `machine.refused` when the machine is off. */
  readonly qmp: QmpClient;
  /** One change at a time. */
  exclusive<Value>(change: () => Promise<Value>): Promise<Value>;
  execute(command: string, args?: JsonObject, signal?: AbortSignal): Promise<Json>;
  update(patch: RecordPatch | ((record: MachineRecord) => RecordPatch)): Promise<void>;
}
