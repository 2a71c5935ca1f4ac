/** A disk host's calls as they cross between processes. */
import { z } from "zod";
import type { CaptureStatus, DiskHost, SeedStatus } from "#cloud/disk-host.ts";
import type { LocalMethods } from "#wire/local-api/local-api.ts";

/** A cloud's own id. Also a name in folders of the host, so nothing that could lead out of them. */
const id = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9-]{0,63}$/);
const uri = z.string().min(1).max(4096);
const bytes = z.int().nonnegative();

const captureStatus = z.object({
  volumeId: id,
  uri,
  state: z.enum(["synchronising", "continuous", "interrupted"]),
  reason: z.string().nullable(),
  copiedBytes: bytes,
  totalBytes: bytes,
  since: z.number(),
}) satisfies z.ZodType<CaptureStatus>;

const seedStatus = z.object({
  volumeId: id,
  uri,
  state: z.enum(["copying", "waiting", "done"]),
  copiedBytes: bytes,
  totalBytes: bytes,
}) satisfies z.ZodType<SeedStatus>;

const nothing = z.strictObject({});
const volume = z.strictObject({ volumeId: id });
const server = z.strictObject({ serverId: id });
const limitMs = z.int().positive().max(3_600_000);

export const hostMethods = {
  startCapture: {
    input: z.strictObject({ volumeId: id, uri, stallLimitMs: limitMs }),
    output: captureStatus,
  },
  stopCapture: { input: volume, output: z.null() },
  captures: { input: nothing, output: z.array(captureStatus) },
  seed: {
    input: z.strictObject({
      volumeId: id,
      uri,
      bytesPerSecond: z.int().positive().optional(),
      replace: z.string().min(1).max(100).optional(),
    }),
    output: seedStatus,
  },
  seeds: { input: nothing, output: z.array(seedStatus) },
  exportVolume: { input: volume, output: z.object({ uri }) },
  endExport: { input: volume, output: z.null() },
  agentAnswers: { input: server, output: z.boolean() },
  freeze: {
    input: z.strictObject({ serverId: id, limitMs }),
    output: z.object({ fileSystems: z.int().nonnegative() }),
  },
  thaw: { input: server, output: z.object({ held: z.boolean() }) },
  exec: {
    input: z.strictObject({
      serverId: id,
      path: z.string().min(1).max(4096),
      args: z.array(z.string().max(4096)).max(100),
      limitMs,
    }),
    output: z.object({ exitCode: z.int().nullable(), output: z.string() }),
  },
  console: { input: server, output: z.string() },
  /** Base64. */
  screenshot: { input: server, output: z.string().nullable() },
} as const satisfies LocalMethods & Record<Exclude<keyof DiskHost, symbol>, unknown>;
