/**
 * Calls between processes of ours: named methods with typed input and output, JSON over HTTP. On one machine by a Unix socket, made with
 * mode 0600: who may open it may call. Between machines over TLS, with certificates of one CA on both sides: who holds one for a
 * name that may call. Errors cross as what they are: code, message, outcome, retry.
 */
import { z } from "zod";
import { errorCodes, OperationalError, type ErrorCode } from "#kernel/errors.ts";

export interface LocalMethod {
  readonly input: z.ZodType;
  readonly output: z.ZodType;
}

export type LocalMethods = Readonly<Record<string, LocalMethod>>;

export type InputOf<M extends LocalMethod | undefined> = M extends LocalMethod ? z.output<M["input"]> : never;
export type OutputOf<M extends LocalMethod | undefined> = M extends LocalMethod
  ? z.output<M["output"]>
  : never;

/** One function a method; the signal aborts when the caller is gone. */
export type LocalHandlers<M extends LocalMethods> = {
  readonly [Name in keyof M]: (input: InputOf<M[Name]>, signal: AbortSignal) => Promise<OutputOf<M[Name]>>;
};

export const maxLocalBodyBytes = 1024 * 1024;

const localError = z.strictObject({
  error: z.strictObject({
    code: z.string(),
    message: z.string(),
    outcome: z.enum(["not_applied", "applied", "unknown"]),
    retry: z.enum(["never", "later", "throttled"]),
    detail: z.string().optional(),
    remoteCode: z.string().optional(),
    retryAfterMs: z.number().optional(),
  }),
});

export type LocalError = z.output<typeof localError>;

export function encodeLocalError(error: OperationalError): LocalError {
  const { code, message, outcome, retry, detail, remoteCode, retryAfterMs } = error;
  return {
    error: {
      code,
      message,
      outcome,
      retry,
      ...(detail === undefined ? {} : { detail }),
      ...(remoteCode === undefined ? {} : { remoteCode }),
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    },
  };
}

/** Undefined: it is no error of ours. A code that this version does not know is `internal`, and stands in the detail. */
export function decodeLocalError(value: unknown): OperationalError | undefined {
  const parsed = localError.safeParse(value);
  if (!parsed.success) return undefined;
  const { code, message, outcome, retry, detail, remoteCode, retryAfterMs } = parsed.data.error;
  const known = Object.hasOwn(errorCodes, code);
  const told = known ? detail : `${code}: ${detail ?? ""}`;
  return new OperationalError(known ? (code as ErrorCode) : "internal", message, {
    outcome,
    retry,
    ...(told === undefined ? {} : { detail: told }),
    ...(remoteCode === undefined ? {} : { remoteCode }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}
