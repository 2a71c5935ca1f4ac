/** What a run works on: one environment with everything around it. Built by the environment's runtime. */
import type { Catalogue, Cloud } from "#cloud/contract.ts";
import type { DiskHost } from "#cloud/disk-host.ts";
import type { Clock } from "#kernel/clock.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import type { JournalEntry } from "#model/command.ts";
import type { Gap } from "#model/gap.ts";
import type { CallLimiter } from "#standby/call-limiter.ts";
import type { Store } from "#store/contract.ts";
import type { DiskMover } from "#recovery/disk-mover.ts";
import type { EnvironmentRecord } from "#takeover/environment-record.ts";
import type { EnvironmentSettings } from "#takeover/settings.ts";
import type { TrafficDirector } from "#takeover/traffic-director.ts";

export interface Site {
  readonly name: string;
  readonly cloud: Cloud;
  readonly limiter: CallLimiter;
}

export interface Stage {
  readonly settings: EnvironmentSettings;
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly director: TrafficDirector;
  /** Absent: no disk's content is kept. */
  readonly disks: DiskMover | undefined;
  site(name: string): Site;
  /** Undefined: no host agent of ours runs the site's machines. */
  hostOf(site: string): DiskHost | undefined;
  /** What was last read of the site, also when it is gone. */
  catalogue(site: string): Promise<Catalogue>;
  record(): Promise<EnvironmentRecord>;
  /** Everything acknowledged, folded: resolves when the journal's head is reached. */
  settledState(signal: AbortSignal): Promise<EnvironmentState>;
  /** Commands whose outcome is not known. */
  openCommands(): Promise<readonly JournalEntry[]>;
  /** Gives up asking about a command: it is closed as not acknowledged, and becomes a gap. */
  abandon(entry: JournalEntry): Promise<void>;
  /** How many of the recorded commands the site `to` reflects now. */
  countDrained(from: string, to: string): Promise<{ readonly commands: number; readonly drained: number }>;
  recordGaps(gaps: readonly Gap[]): Promise<void>;
}
