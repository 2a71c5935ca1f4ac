/**
 * Operational failures. Each has a code from one table, which also says what an HTTP caller, a shell and a
 * retry loop make of it. `message` is for the user: what is wrong and what to do. `detail` is for the log.
 */

/** What is known of the change that was asked for when the error arose. */
export type Outcome = "not_applied" | "applied" | "unknown";

/** `never`: the same request fails again; `later`: wait and repeat; `throttled`: slow down, then repeat. */
export type RetryClass = "never" | "later" | "throttled";

interface CodeFacts {
  readonly http: number;
  readonly exit: number;
  readonly retry: RetryClass;
}

/**
 * Exit codes: 1 internal, 2 usage or input, 3 refused by state or policy, 4 not found, 5 authentication,
 * 6 the other side is unreachable or failing, 7 a limit (disk, quota, size), 8 the environment is not whole,
 * 9 stored data is damaged.
 */
export const errorCodes = {
  internal: { http: 500, exit: 1, retry: "never" },
  "input.invalid": { http: 400, exit: 2, retry: "never" },
  "input.too_large": { http: 413, exit: 7, retry: "never" },
  "config.invalid": { http: 400, exit: 2, retry: "never" },
  "config.missing": { http: 400, exit: 2, retry: "never" },
  "auth.missing": { http: 401, exit: 5, retry: "never" },
  "auth.invalid": { http: 401, exit: 5, retry: "never" },
  "auth.expired": { http: 401, exit: 5, retry: "never" },
  "auth.forbidden": { http: 403, exit: 5, retry: "never" },
  not_found: { http: 404, exit: 4, retry: "never" },
  "state.conflict": { http: 409, exit: 3, retry: "never" },
  "state.fenced": { http: 409, exit: 3, retry: "never" },
  "state.confirmation_required": { http: 409, exit: 3, retry: "never" },
  "environment.incomplete": { http: 409, exit: 8, retry: "never" },
  "cloud.unreachable": { http: 502, exit: 6, retry: "later" },
  "cloud.timeout": { http: 504, exit: 6, retry: "later" },
  "cloud.failing": { http: 502, exit: 6, retry: "later" },
  "cloud.throttled": { http: 503, exit: 6, retry: "throttled" },
  "cloud.refused": { http: 502, exit: 6, retry: "never" },
  "cloud.credentials": { http: 502, exit: 5, retry: "never" },
  "cloud.quota": { http: 502, exit: 7, retry: "never" },
  "cloud.not_found": { http: 404, exit: 4, retry: "never" },
  "cloud.conflict": { http: 409, exit: 3, retry: "later" },
  "cloud.unsupported": { http: 501, exit: 3, retry: "never" },
  "cloud.protocol": { http: 502, exit: 6, retry: "later" },
  "traffic.unreachable": { http: 502, exit: 6, retry: "later" },
  "traffic.refused": { http: 502, exit: 3, retry: "never" },
  "store.full": { http: 507, exit: 7, retry: "later" },
  "store.failing": { http: 503, exit: 1, retry: "later" },
  "store.version": { http: 500, exit: 3, retry: "never" },
  "vault.damaged": { http: 500, exit: 9, retry: "never" },
  "vault.key": { http: 401, exit: 5, retry: "never" },
  "vault.unreachable": { http: 502, exit: 6, retry: "later" },
  "disk.failing": { http: 503, exit: 1, retry: "later" },
  "disk.range": { http: 400, exit: 2, retry: "never" },
  "nbd.refused": { http: 502, exit: 3, retry: "never" },
  "nbd.protocol": { http: 502, exit: 6, retry: "never" },
  "nbd.unreachable": { http: 502, exit: 6, retry: "later" },
  "machine.refused": { http: 409, exit: 3, retry: "never" },
  "machine.failing": { http: 502, exit: 6, retry: "later" },
  "port.in_use": { http: 500, exit: 2, retry: "never" },
  "port.forbidden": { http: 500, exit: 2, retry: "never" },
  "api.unreachable": { http: 502, exit: 6, retry: "later" },
  aborted: { http: 499, exit: 130, retry: "never" },
} as const satisfies Record<string, CodeFacts>;

export type ErrorCode = keyof typeof errorCodes;

export interface OperationalErrorOptions {
  /** Default `not_applied`: say otherwise whenever a request may have left this process. */
  readonly outcome?: Outcome;
  /** For the log: the other side's own words, ids, addresses. Never a secret. */
  readonly detail?: string;
  /** The other side's own error code, e.g. `InvalidInstanceID.NotFound`. */
  readonly remoteCode?: string;
  /** How long the other side asked to wait, in milliseconds. */
  readonly retryAfterMs?: number;
  /** Overrides the code's retry class where the other side said more. */
  readonly retry?: RetryClass;
  readonly cause?: unknown;
}

export class OperationalError extends Error {
  override readonly name = "OperationalError";
  readonly code: ErrorCode;
  readonly outcome: Outcome;
  readonly retry: RetryClass;
  readonly detail: string | undefined;
  readonly remoteCode: string | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message: string, options: OperationalErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.outcome = options.outcome ?? "not_applied";
    this.retry = options.retry ?? errorCodes[code].retry;
    this.detail = options.detail;
    this.remoteCode = options.remoteCode;
    this.retryAfterMs = options.retryAfterMs;
  }
}

export function isOperational(error: unknown, code?: ErrorCode): error is OperationalError {
  return error instanceof OperationalError && (code === undefined || error.code === code);
}

/** The text to show for any thrown value; `detail` and causes are for logs, not for this. */
export function publicMessage(error: unknown): string {
  if (error instanceof OperationalError) return error.message;
  return error instanceof Error ? `internal error: ${error.message}` : "internal error";
}
