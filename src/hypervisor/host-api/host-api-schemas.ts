/**
 * The host API: HTTP/1.1 with JSON over a Unix socket that only its user can open. Each call of `DiskHost` is
 * `POST /v1/NAME` with one object; the answer is `{"result": ...}` with status 200, or `{"error": ...}` with the error's own.
 */
import { z } from "zod";
import type { CaptureStatus, DiskHost, SeedStatus } from "#cloud/disk-host.ts";
import { errorCodes, type ErrorCode, OperationalError } from "#kernel/errors.ts";

export const HOST_API_PREFIX = "/v1/";
export const MOST_REQUEST_BYTES = 64 * 1024;
export const MOST_RESPONSE_BYTES = 4 * 1024 * 1024;

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

export const hostCalls = {
  startCapture: {
    request: z.strictObject({ volumeId: id, uri, stallLimitMs: limitMs }),
    response: captureStatus,
  },
  stopCapture: { request: volume, response: z.null() },
  captures: { request: nothing, response: z.array(captureStatus) },
  seed: {
    request: z.strictObject({ volumeId: id, uri, bytesPerSecond: z.int().positive().optional() }),
    response: seedStatus,
  },
  seeds: { request: nothing, response: z.array(seedStatus) },
  exportVolume: { request: volume, response: z.object({ uri }) },
  endExport: { request: volume, response: z.null() },
  freeze: { request: z.strictObject({ serverId: id, limitMs }), response: z.null() },
  thaw: { request: server, response: z.null() },
  console: { request: server, response: z.string() },
} as const satisfies Record<Exclude<keyof DiskHost, symbol>, { request: z.ZodType; response: z.ZodType }>;

export type HostCall = keyof typeof hostCalls;
export type HostRequest<Call extends HostCall> = z.output<(typeof hostCalls)[Call]["request"]>;
export type HostResponse<Call extends HostCall> = z.output<(typeof hostCalls)[Call]["response"]>;

export function isHostCall(name: string): name is HostCall {
  return Object.hasOwn(hostCalls, name);
}

export const hostError = z.object({
  code: z.string(),
  message: z.string(),
  outcome: z.enum(["not_applied", "applied", "unknown"]),
  retry: z.enum(["never", "later", "throttled"]),
  detail: z.string().optional(),
  remoteCode: z.string().optional(),
  retryAfterMs: z.number().optional(),
});

/** Also of a bug at this side, which is told as no more than that. */
export function encodeHostError(error: unknown): z.input<typeof hostError> {
  if (!(error instanceof OperationalError)) {
    return {
      code: "internal",
      message: "internal error of the host agent",
      outcome: "unknown",
      retry: "never",
    };
  }
  const { code, message, outcome, retry, detail, remoteCode, retryAfterMs } = error;
  return {
    code,
    message,
    outcome,
    retry,
    ...(detail !== undefined && { detail }),
    ...(remoteCode !== undefined && { remoteCode }),
    ...(retryAfterMs !== undefined && { retryAfterMs }),
  };
}

/** A code that this version does not know becomes `machine.failing`, with the code in the detail. */
export function decodeHostError(error: z.output<typeof hostError>): OperationalError {
  const { code, message, detail, ...rest } = error;
  const known = Object.hasOwn(errorCodes, code);
  const told = known ? detail : `${code}: ${detail ?? ""}`;
  const { outcome, retry, remoteCode, retryAfterMs } = rest;
  return new OperationalError(known ? (code as ErrorCode) : "machine.failing", message, {
    outcome,
    retry,
    ...(told !== undefined && { detail: told }),
    ...(remoteCode !== undefined && { remoteCode }),
    ...(retryAfterMs !== undefined && { retryAfterMs }),
  });
}
