/** The desk's calls as they cross between processes. */
import { z } from "zod";
import { keptPointSchema, keptVerdictSchema } from "#recovery/kept-points.ts";
import { groupName, volumeName } from "./export-name.ts";

const group = z.string().regex(groupName, "is no name of a group");
const volume = z.string().regex(volumeName, "is no name of a volume");
const taker = z.strictObject({ site: z.string().max(100), volumeId: z.string().max(200) });
const moment = z.strictObject({ sequence: z.int().nonnegative(), at: z.number() });
const image = z.strictObject({
  id: z.string().min(1).max(200),
  atMs: z.int().nonnegative(),
  base: z.string().max(200).nullable(),
  throughBytes: z.int().nonnegative(),
});
const keptVolume = z.strictObject({
  volume: z.string(),
  sizeBytes: z.int().nonnegative(),
  state: z.enum(["synchronising", "continuous"]),
  reason: z.string(),
  session: z.int().nonnegative(),
  confirmed: z.boolean(),
  image: image.nullable(),
});
const groupStatus = z.strictObject({
  group: z.string(),
  epoch: z.int(),
  history: z.string(),
  volumes: z.array(keptVolume),
  last: moment.nullable(),
  oldest: moment.nullable(),
  shipLagMs: z.number(),
  foldedSequence: z.int().nonnegative(),
});
const keptPointFacts = keptPointSchema.omit({ configuration: true }).extend({
  disks: z.record(z.string(), z.string()),
  verdict: keptVerdictSchema.nullable(),
  evidenceAt: z.int().nonnegative().nullable(),
});
const nothing = z.null();

export const deskMethods = {
  protect: {
    input: z.strictObject({
      group,
      volume,
      sizeBytes: z.int().positive(),
      epoch: z.int().nonnegative(),
    }),
    output: z.strictObject({ uri: z.string(), history: z.string() }),
  },
  release: { input: z.strictObject({ group, volume }), output: nothing },
  fence: { input: z.strictObject({ group, epoch: z.int().nonnegative() }), output: nothing },
  markWhole: { input: z.strictObject({ group, volume, session: z.int().positive() }), output: nothing },
  takeImage: {
    input: z.strictObject({ group, volume, epoch: z.int().nonnegative(), image }),
    output: z.strictObject({ uri: z.string() }),
  },
  completeImage: {
    input: z.strictObject({ group, volume, epoch: z.int().nonnegative(), image: z.string().max(200) }),
    output: nothing,
  },
  volumes: { input: z.strictObject({ group }), output: z.array(keptVolume) },
  status: { input: z.strictObject({ group }), output: groupStatus.nullable() },
  moment: { input: z.strictObject({ group, atMs: z.number().nullable() }), output: moment },
  serve: {
    input: z.strictObject({ group, volume, moment }),
    output: z.strictObject({ uri: z.string(), sizeBytes: z.int().nonnegative() }),
  },
  pin: {
    input: z.strictObject({ group, volume, moment, taker }),
    output: z.strictObject({ uri: z.string(), sizeBytes: z.int().nonnegative() }),
  },
  unpin: {
    input: z.strictObject({ group, volume, sequence: z.int().nonnegative(), taker }),
    output: nothing,
  },
  pins: {
    input: z.strictObject({ group }),
    output: z.array(
      z.strictObject({
        volume: z.string(),
        sequence: z.int().nonnegative(),
        taker,
        uri: z.string(),
        since: z.number(),
      }),
    ),
  },
  keepPoint: { input: z.strictObject({ group, point: keptPointSchema }), output: nothing },
  keepVerdict: {
    input: z.strictObject({
      group,
      point: keptPointSchema.pick({ id: true, at: true }),
      verdict: keptVerdictSchema,
    }),
    output: nothing,
  },
  keptPoints: { input: z.strictObject({ group }), output: z.array(keptPointFacts) },
  keepEvidence: {
    input: z.strictObject({
      group,
      point: keptPointSchema.pick({ id: true, at: true }),
      evidence: z.strictObject({ at: z.int().nonnegative(), text: z.string().max(1_000_000) }),
    }),
    output: nothing,
  },
  keptEvidence: { input: z.strictObject({ group, id: z.string() }), output: z.string() },
  keptConfiguration: { input: z.strictObject({ group, id: z.string() }), output: z.string() },
} as const;

export type DeskMethods = typeof deskMethods;
