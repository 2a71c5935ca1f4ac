/** The shapes of the HTTP API; the OpenAPI document is made from these. */
import { z } from "zod";
import { noticeCodes, type NoticeCode } from "#model/notice.ts";
import { runKinds } from "#model/run.ts";

export const errorBody = z.object({
  error: z.object({
    code: z.string().describe("dotted code, e.g. state.conflict"),
    message: z.string().describe("what is wrong and what to do"),
    requestId: z.string(),
  }),
});

export const environmentParams = z.strictObject({ environment: z.string().min(1).max(40) });
export const pointParams = z.strictObject({
  environment: z.string().min(1).max(40),
  point: z.string().regex(/^[a-z0-9-]{1,60}$/u),
});
export const runParams = z.strictObject({ run: z.string().min(1).max(80) });

export const pageQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  before: z.coerce.number().int().min(0).optional(),
});

export const eventsQuery = z.strictObject({
  after: z.coerce.number().int().min(0).default(0),
  limit: z.coerce.number().int().min(1).max(1000).default(200),
  /** Waits so long for the first event, in milliseconds. */
  waitMs: z.coerce.number().int().min(0).max(30_000).default(0),
});

export const runsQuery = z.strictObject({
  environment: z.string().min(1).max(40).optional(),
  limit: z.coerce.number().int().min(1).max(500).default(50),
});

export const startRunBody = z.strictObject({
  kind: z.enum(runKinds),
  reason: z.string().min(1).max(500),
  force: z.boolean().default(false),
  /** Protected disks as they were then, in milliseconds since the epoch; absent: as they were last captured. */
  at: z.number().nonnegative().optional(),
  /** With `at`, the very moment: a recovery point's write. */
  sequence: z.number().int().nonnegative().optional(),
  /** A restore or a drill of a part: volumes by their ids where the environment is served. */
  volumes: z.array(z.string().min(1).max(100)).min(1).max(1000).optional(),
  /** The same, by their servers' ids or names. */
  servers: z.array(z.string().min(1).max(255)).min(1).max(1000).optional(),
  /** A restore only: the disks are replaced at once, and their content comes over while their servers run. */
  live: z.boolean().optional(),
  /** A restore only, instead of `at`: disks that are part old and part new are taken as they are. */
  asItIs: z.boolean().optional(),
  /** A drill stands so long to be looked at, in milliseconds; at most a day. */
  holdMs: z.number().int().min(0).max(86_400_000).optional(),
});

export const createPointBody = z.strictObject({
  /** `application`: file systems stand still while it is taken, where guest agents can do that. */
  consistency: z.enum(["crash", "application"]).default("crash"),
});

export const noticesBody = z.strictObject({
  notices: z
    .array(
      z.strictObject({
        probe: z.string().min(1).max(60),
        code: z.enum(Object.keys(noticeCodes) as [NoticeCode, ...NoticeCode[]]),
        raised: z.boolean(),
        detail: z.string().max(500),
        at: z.number(),
      }),
    )
    .min(1)
    .max(200),
});
