/** What the agent's commands ask of the composition root. */
import type { AgentStatus } from "#agent/agent-status.ts";

export interface AgentTools {
  /** Until the signal aborts. Errors: `config.*`, `state.conflict`, `state.fenced`, `auth.*`. */
  run(flags: { readonly config: string; readonly json: boolean }, signal: AbortSignal): Promise<void>;
  /** Errors: `config.*`, `api.unreachable` when it does not run. */
  status(config: string, signal: AbortSignal): Promise<AgentStatus>;
}
