/** The vocabulary of asking an OpenStack what became of a command. */
import type { Intent } from "#model/command.ts";
import type { AskCloud } from "#gateway/dialect.ts";
import type { RecordedRequest } from "./recorded-request.ts";

/** What the cloud shows of a command. `applied`: with the body that the lost answer would have had, as far as is known. */
export type Trace =
  | { readonly trace: "applied"; readonly body: unknown }
  | { readonly trace: "none" }
  | { readonly trace: "unclear"; readonly why: string };

export interface Inquiry {
  readonly intent: Intent;
  readonly request: RecordedRequest;
  readonly ask: AskCloud;
  readonly knownIds: () => Promise<ReadonlySet<string>>;
  /** Keeps other commands from a resource until the outcome is recorded. */
  readonly hold: (id: string) => Promise<void>;
}

export function isLeaving(state: Readonly<Record<string, unknown>> | undefined): boolean {
  if (state === undefined) return false;
  const status = typeof state["status"] === "string" ? state["status"].toLowerCase() : "";
  return status === "deleting" || status === "deleted" || state["OS-EXT-STS:task_state"] === "deleting";
}
