/** Journal entries as rows and back. */
import { commandId, environmentId } from "#kernel/ids.ts";
import type { Json } from "#kernel/json.ts";
import type { Change } from "#model/change.ts";
import type { CommandOutcome, CommandResult, JournalEntry, ServiceName } from "#model/command.ts";
import type { Gap } from "#model/gap.ts";
import type { CommandTable } from "#store/schema.ts";

function decodeOutcome(row: CommandTable): CommandOutcome | null {
  if (row.result === null) return null;
  return {
    result: row.result as CommandResult,
    status: row.status,
    errorCode: row.error_code,
    changes: JSON.parse(row.changes ?? "[]") as Change[],
    gaps: JSON.parse(row.gaps ?? "[]") as Gap[],
    resolvedLater: row.resolved_later === 1,
    at: row.outcome_at ?? row.intent_at,
  };
}

export function decodeEntry(row: CommandTable): JournalEntry {
  return {
    seq: row.seq,
    intent: {
      id: commandId(row.id),
      environment: environmentId(row.environment),
      service: row.service as ServiceName,
      operation: row.operation,
      input: JSON.parse(row.input) as Json,
      token: row.token,
      principal: row.principal,
      epoch: row.epoch,
      at: row.intent_at,
    },
    position: row.position,
    outcome: decodeOutcome(row),
  };
}

/** The columns that an outcome fills. Empty lists are the most frequent value, so they cost no encoder. */
export function encodeOutcome(
  outcome: CommandOutcome,
): Pick<
  CommandTable,
  "result" | "status" | "error_code" | "changes" | "gaps" | "resolved_later" | "outcome_at"
> {
  return {
    result: outcome.result,
    status: outcome.status,
    error_code: outcome.errorCode,
    changes: outcome.changes.length === 0 ? "[]" : JSON.stringify(outcome.changes),
    gaps: outcome.gaps.length === 0 ? "[]" : JSON.stringify(outcome.gaps),
    resolved_later: outcome.resolvedLater ? 1 : 0,
    outcome_at: outcome.at,
  };
}
