/** One change that a user's tool asked of the active cloud's API, as the journal keeps it. */
import type { CommandId, EnvironmentId } from "#kernel/ids.ts";
import type { Json } from "#kernel/json.ts";
import type { Change } from "#model/change.ts";
import type { Gap } from "#model/gap.ts";

/** Which protocol the command came in: the name of a gateway dialect's service. */
export type ServiceName = "ec2" | "elasticloadbalancing" | "autoscaling" | "openstack";

/** What is recorded, durably, before the command is forwarded. */
export interface Intent {
  readonly id: CommandId;
  readonly environment: EnvironmentId;
  readonly service: ServiceName;
  /** `RunInstances`, or `POST /servers` for REST dialects. */
  readonly operation: string;
  /** Decoded input; for an operation with no known schema, its parameters as received. Secrets are left out. */
  readonly input: Json;
  /** The idempotency token that went with the forwarded request, where the operation has one. */
  readonly token: string | null;
  /** The access key id or user that asked. */
  readonly principal: string;
  /** The fencing epoch under which it was accepted. */
  readonly epoch: number;
  /** Milliseconds since the Unix epoch. */
  readonly at: number;
}

/**
 * `applied`: the cloud did it. `refused`: the cloud said no, nothing changed. `unknown`: sent, no answer, and the
 * cloud has not yet been asked (it is asked before anything is repeated; then the entry becomes one of the others).
 */
export type CommandResult = "applied" | "refused" | "unknown";

/** What is recorded, durably, before the caller gets the answer. */
export interface CommandOutcome {
  readonly result: CommandResult;
  /** HTTP status of the cloud's answer; null if there was none. */
  readonly status: number | null;
  /** The cloud's own error code for a refusal. */
  readonly errorCode: string | null;
  readonly changes: readonly Change[];
  readonly gaps: readonly Gap[];
  /** True when the outcome came from asking the cloud afterwards. */
  readonly resolvedLater: boolean;
  readonly at: number;
}

/** A command with its place: `seq` orders intents, `position` orders outcomes; readers follow `position`. */
export interface JournalEntry {
  readonly seq: number;
  readonly intent: Intent;
  /** Null while the outcome is not yet recorded. */
  readonly position: number | null;
  readonly outcome: CommandOutcome | null;
}
