import type { Clock } from "#kernel/clock.ts";
import type { EnvironmentId } from "#kernel/ids.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import type { Journal } from "#journal/contract.ts";
import type { Dialect, MovedTo, Upstreams } from "./dialect.ts";

export interface GatewayEnvironment {
  readonly id: EnvironmentId;
  /** The services of its active site, by name. */
  readonly services: Upstreams;
}

/** What the gateway believes of an environment's epoch. The journal has the last word. */
export interface FenceView {
  readonly epoch: number;
  /** Set while changes are to be refused here, because the environment is served by another site. */
  readonly moved: MovedTo | null;
}

export interface GatewayLimits {
  readonly connections: number;
  readonly headerBytes: number;
  /** All request bodies held at once, in bytes. */
  readonly bufferedBodyBytes: number;
  /** Requests in progress, over all environments. */
  readonly requests: number;
  /** Changes of one environment that wait or run; more are told to slow down. */
  readonly changes: number;
  /** Commands of one environment whose outcome is not known; with more, no change is taken until the cloud answers. */
  readonly open: number;
  /** For a whole request to arrive. */
  readonly requestTimeoutMs: number;
  /** How long a change waits for an earlier one on the same resources. */
  readonly lockWaitMs: number;
  readonly upstreamConnections: number;
  readonly connectTimeoutMs: number;
  readonly answerTimeoutMs: number;
  /** Largest answer to a change. */
  readonly changeAnswerBytes: number;
  /** The cloud must still not know a command this long after it was lost before it counts as not applied. */
  readonly settleMs: number;
  /** For requests in progress when the gateway closes. */
  readonly closeGraceMs: number;
}

export const defaultLimits: GatewayLimits = {
  connections: 2_048,
  headerBytes: 16_384,
  bufferedBodyBytes: 64 * 1024 * 1024,
  requests: 4_096,
  changes: 512,
  open: 256,
  requestTimeoutMs: 30_000,
  lockWaitMs: 30_000,
  upstreamConnections: 64,
  connectTimeoutMs: 5_000,
  answerTimeoutMs: 60_000,
  changeAnswerBytes: 16 * 1024 * 1024,
  settleMs: 3_000,
  closeGraceMs: 10_000,
};

export interface GatewayOptions {
  /** Port 0 takes any free one. */
  readonly listen: { readonly host: string; readonly port: number };
  readonly environments: readonly GatewayEnvironment[];
  readonly dialects: readonly Dialect[];
  readonly journal: Journal;
  /** Asked for every change; cheap, never blocking. */
  readonly fence: (environment: EnvironmentId) => FenceView;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly limits?: Partial<GatewayLimits>;
}
