/**
 * What an agent asks of the vault's intake, over HTTPS: `POST /v1/NAME` with the agent's key as bearer token. JSON both ways, but for
 * the bytes of a part and of hashes. Errors cross as in `wire/local-api`. Each call may be repeated.
 */
import { z } from "zod";
import { passConsistency, passVolume } from "./pass-part.ts";

const stream = z.string().regex(/^[0-9a-f]{32}$/u);

/** A pass that the vault took in as a moment of all its disks. */
export const passPoint = z.strictObject({
  pass: z.int().positive(),
  instantMs: z.int().nonnegative(),
  consistency: passConsistency.exclude(["fuzzy"]),
  /** When the vault had all of it. Its moment is named by its instant all the same. */
  takenMs: z.int().nonnegative(),
});
export type PassPoint = z.output<typeof passPoint>;

const standing = z.strictObject({
  /** The last part that is durable at the vault. */
  received: z.int().nonnegative(),
  /** The last pass that became a moment. */
  point: passPoint.nullable(),
});
export type IntakeStanding = z.output<typeof standing>;

export const intakeCalls = {
  /** A new stream takes the place of an older one of the same agent. */
  begin: {
    input: z.strictObject({
      stream,
      /** The epoch of the stream before it, which must still be the environment's; null: there was none. */
      after: z.int().nonnegative().nullable(),
      volumes: z.array(passVolume).min(1).max(64),
    }),
    output: z.strictObject({
      ...standing.shape,
      /** Of the environment; a stream ends when it rises. */
      epoch: z.int().nonnegative(),
      blockBytes: z.int().positive(),
    }),
  },
  /** Errors: `not_found` for a stream that the vault does not know, `state.conflict` for one that another has replaced. */
  standing: { input: z.strictObject({ stream }), output: standing },
} as const;

/** Answered with runs of hashes. */
export const leavesInput = z.strictObject({
  stream,
  volume: passVolume.shape.volume,
  firstBlock: z.int().nonnegative(),
  blocks: z.int().positive(),
});

/** Of an answer, and of every call that is JSON. */
export const maxIntakeJsonBytes = 256 * 1024;
export const partType = "application/vnd.understudy.part";
export const leavesType = "application/vnd.understudy.leaves";

/** Sent with `POST /v1/part`; the answer is the standing, once the part is durable and, if it ends a pass, the pass is taken in. */
export const partAnswer = standing;
