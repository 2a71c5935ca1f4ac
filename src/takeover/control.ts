/** What can be asked of a running control plane: the API's one door to everything below it. */
import type { ResourceKind } from "#model/resource.ts";
import type { JournalEntry } from "#model/command.ts";
import type { Evidence } from "#model/evidence.ts";
import type { Gap } from "#model/gap.ts";
import type { Notice } from "#model/notice.ts";
import type { EnvironmentPhase, Run, RunKind, RunStep } from "#model/run.ts";
import type { Observation } from "#health/notice-board.ts";
import type { ProtectedDisk } from "#recovery/protect-disks.ts";
import type { RecoveryPoint } from "#recovery/recovery-points.ts";
import type { GroupStatus } from "#recovery/vault-desk.ts";
import type { RouteStatus } from "#takeover/traffic-director.ts";
import type { TimelineEvent } from "#takeover/run-ledger.ts";

/** Computed from verified parts, never from the absence of errors. */
export type Health =
  /** Everything needed for a takeover was seen to work. */
  | "ready"
  /** A takeover would work, with the named shortcomings. */
  | "degraded"
  /** A takeover would not work now. */
  | "unprotected"
  /** A run is moving the environment. */
  | "moving";

export interface Finding {
  readonly severity: "error" | "warning" | "info";
  /** What is wrong and what to do. */
  readonly message: string;
}

export interface EnvironmentStatus {
  readonly id: string;
  readonly phase: EnvironmentPhase;
  readonly epoch: number;
  readonly activeSite: string;
  readonly standbySite: string;
  /** Where users' traffic belongs now. */
  readonly servingSite: string;
  readonly health: Health;
  readonly findings: readonly Finding[];
  readonly journal: { readonly commands: number; readonly open: number; readonly head: number };
  /** How far the record of the environment and the reserve are behind the journal, in commands. */
  readonly behind: { readonly state: number; readonly standby: number };
  readonly resources: Readonly<Partial<Record<ResourceKind, number>>>;
  readonly servers: { readonly active: number; readonly reserve: number };
  /** What a takeover would still have to do. */
  readonly queue: {
    readonly creates: number;
    readonly updates: number;
    readonly deletes: number;
    readonly estimatedSeconds: number;
  };
  readonly gaps: { readonly lost: number; readonly degraded: number; readonly note: number };
  readonly routes: readonly RouteStatus[];
  readonly witnesses: readonly Observation[];
  /** Those whose content is kept, as last seen at the site that serves. */
  readonly disks: readonly ProtectedDisk[];
  readonly run: { readonly id: string; readonly kind: RunKind } | null;
}

export interface PairingView {
  readonly scope: string;
  readonly kind: ResourceKind;
  readonly activeId: string;
  readonly standbyId: string | null;
  readonly state: "creating" | "paired" | "deleting";
}

export interface RunRequest {
  readonly environment: string;
  readonly kind: RunKind;
  /** Who asks: a user's name from the API token, or `witnesses`. */
  readonly by: string;
  readonly reason: string;
  /** Goes on although the source could not be fenced; the reason is kept with the run. */
  readonly force: boolean;
  /** Disks as they were then, in milliseconds since the epoch; absent: as they were last captured. */
  readonly at?: number;
  /** With `at`, the very moment: a recovery point's write. */
  readonly sequence?: number;
  /** A restore or a drill of a part: volumes by their ids where the environment is served; with `servers` absent too: all. */
  readonly volumes?: readonly string[];
  /** By id or name. */
  readonly servers?: readonly string[];
  /** A restore only: the disks are replaced at once, and their content comes over while their servers run. */
  readonly live?: boolean;
  /** A restore only, instead of a moment: disks that an earlier one left part old and part new are taken as they are. */
  readonly asItIs?: boolean;
  /** A drill stands for so long after it was verified, to be looked at, in milliseconds. */
  readonly holdMs?: number;
}

export interface RunView extends Run {
  readonly steps: readonly RunStep[];
}

/** What can be recovered to. */
export interface PointsView {
  /** What the vault says of the environment's disks; null: nothing was ever captured, or none is protected. */
  readonly group: GroupStatus | null;
  /** Newest first. */
  readonly points: readonly RecoveryPoint[];
}

export interface ControlPlane {
  environments(): readonly string[];
  status(environment: string): Promise<EnvironmentStatus>;
  resources(
    environment: string,
  ): Promise<
    readonly { kind: ResourceKind; id: string; tags: Readonly<Record<string, string>>; spec: object }[]
  >;
  journal(environment: string, limit: number, before?: number): Promise<readonly JournalEntry[]>;
  pairings(environment: string): Promise<readonly PairingView[]>;
  gaps(
    environment: string,
  ): Promise<readonly (Gap & { readonly firstAt: number; readonly lastAt: number })[]>;
  /** Errors: `api.unreachable` when the vault's process does not answer. */
  points(environment: string, signal: AbortSignal): Promise<PointsView>;
  /**
   * A recovery point of now. Asked for `application`, it may come out as `crash`, and says why. Errors: `state.conflict`,
   * `not_found`, `api.unreachable`.
   */
  createPoint(
    environment: string,
    consistency: "crash" | "application",
    signal: AbortSignal,
  ): Promise<RecoveryPoint>;
  /** What was seen when the point was booted and probed last. Errors: `not_found`, `api.unreachable`. */
  pointEvidence(environment: string, id: string, signal: AbortSignal): Promise<Evidence>;
  /** Begins the run and returns at once. Errors: `state.conflict`, `not_found`. */
  startRun(request: RunRequest): Promise<Run>;
  /** Ends a run that is under way, and undoes what it did: it ends when that is done. Errors: `state.conflict`, `not_found`. */
  cancelRun(id: string, by: string): Promise<Run>;
  run(id: string): Promise<RunView>;
  runs(environment: string | undefined, limit: number): Promise<readonly Run[]>;
  events(environment: string, after: number, limit: number): Promise<readonly TimelineEvent[]>;
  /** Resolves when there are events after `after`, or after `waitMs`. */
  eventsAfter(
    environment: string,
    after: number,
    waitMs: number,
    signal: AbortSignal,
  ): Promise<readonly TimelineEvent[]>;
  postNotices(notices: readonly Notice[]): Promise<void>;
}
