/** How disks are held still, and what must be done to let them go: told to the keeper process, and kept in a file. */
import { z } from "zod";

const command = z.array(z.string().min(1)).min(1);

export const holdPlan = z.strictObject({
  /** Run before; its end is the moment, where nothing is frozen. */
  before: command.nullable(),
  /** Mount points of file systems that are frozen, in this order. */
  freeze: z.array(z.string()),
  /** Run when the file systems are thawed. Must do no harm when it is run twice. */
  after: command.nullable(),
  /** Longer than this nothing is held, in milliseconds. */
  limitMs: z.int().positive(),
  /** A hook that takes longer is ended. */
  hookLimitMs: z.int().positive(),
});
export type HoldPlan = z.output<typeof holdPlan>;

/** What the keeper says, a line of JSON each. `held`: from here on, until `released`. */
export const keeperWord = z.discriminatedUnion("word", [
  z.strictObject({ word: z.literal("held"), instantMs: z.int() }),
  z.strictObject({ word: z.literal("refused"), problem: z.string() }),
  z.strictObject({
    word: z.literal("released"),
    why: z.enum(["asked", "limit", "gone"]),
    problems: z.array(z.string()),
  }),
]);
export type KeeperWord = z.output<typeof keeperWord>;
