import type { AskCloud, Resolution } from "#gateway/dialect.ts";
import type { Intent } from "#model/command.ts";

/** Finds out what became of a command whose answer was lost. */
export async function resolveAws(intent: Intent, _ask: AskCloud, _signal: AbortSignal): Promise<Resolution> {
  return {
    result: "undecidable",
    gaps: [
      {
        code: "outcome.unknown",
        severity: "lost",
        operation: `${intent.service}:${intent.operation}`,
        message: `${intent.operation} was sent, and its answer was lost: look in the cloud whether it took effect`,
      },
    ],
  };
}
