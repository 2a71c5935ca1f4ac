/** What an agent says of itself, to whoever may open the socket in its state folder. */
import { join } from "node:path";
import { z } from "zod";
import { passPoint } from "#wire/agent/intake-calls.ts";
import { passConsistency } from "#wire/agent/pass-part.ts";

const outcome = z.strictObject({
  pass: z.int(),
  startedMs: z.int(),
  /** The moment of the disks, or of a fuzzy pass its end. */
  instantMs: z.int(),
  consistency: passConsistency,
  reason: z.string().nullable(),
  diskBytes: z.int(),
  readBytes: z.int(),
  changedBytes: z.int(),
  heldMs: z.int(),
});

export const agentStatus = z.strictObject({
  pid: z.int(),
  /** Null: nothing was begun. */
  stream: z.string().nullable(),
  /** `beginning`: asking the vault what it has. */
  state: z.enum(["beginning", "reading", "waiting"]),
  disks: z.array(z.strictObject({ volume: z.string(), path: z.string() })),
  /** Of the pass under way; null between two. */
  reading: z
    .strictObject({ phase: z.enum(["live", "held"]), readBytes: z.int(), totalBytes: z.int() })
    .nullable(),
  nextPassMs: z.int().nullable(),
  lastPass: outcome.nullable(),
  /** Why each pass reads whole disks; null: it reads what was written. */
  wholeReads: z.string().nullable(),
  /** Why the last pass failed, or nothing can be begun. */
  problem: z.string().nullable(),
  sending: z.strictObject({
    state: z.enum(["idle", "sending", "outside_window", "away"]),
    problem: z.string().nullable(),
    /** By this process. */
    sentBytes: z.int(),
  }),
  spool: z.strictObject({ parts: z.int(), bytes: z.int(), limitBytes: z.int() }),
  /** The last pass that can be recovered to. */
  point: passPoint.nullable(),
  /** Age of its moment: what a loss of the machine would cost now. Null without one. */
  lagMs: z.int().nullable(),
});
export type AgentStatus = z.output<typeof agentStatus>;

export const agentMethods = {
  status: { input: z.strictObject({}), output: agentStatus },
} as const;

export function agentSocketIn(stateFolder: string): string {
  return join(stateFolder, "agent.sock");
}
