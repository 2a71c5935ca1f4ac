/**
 * Calls between processes of ours on one machine: named methods with typed input and output, JSON over HTTP on a Unix socket.
 * Who may open the socket may call: it is made with mode 0600. Errors cross as what they are: code, message, outcome, retry.
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
  }),
});

export type LocalError = z.output<typeof localError>;

export function encodeLocalError(error: OperationalError): LocalError {
  const { code, message, outcome, retry } = error;
  return { error: { code, message, outcome, retry } };
}

/** Undefined: it is no error of ours. */
export function decodeLocalError(value: unknown): OperationalError | undefined {
  const parsed = localError.safeParse(value);
  if (!parsed.success) return undefined;
  const { code, message, outcome, retry } = parsed.data.error;
  const known: ErrorCode = code in errorCodes ? (code as ErrorCode) : "internal";
  return new OperationalError(known, message, { outcome, retry });
}
