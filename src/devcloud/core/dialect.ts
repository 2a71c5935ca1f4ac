/**
 * What a dialect is to the rest of devcloud: it turns an HTTP request into one named call on the core, and injected
 * failures into answers that its clients know. It keeps no state that matters: that is the core's.
 */
import type { Cloud } from "./cloud.ts";

export interface ApiRequest {
  readonly method: string;
  /** Path and query as received. */
  readonly target: string;
  /** Lower-case names; the values as received, joined by `, ` where a header came several times. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export interface ApiResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Buffer;
}

/** An answer that devcloud itself gives in place of the call's. */
export type InjectedFailure =
  /** The account's calls come too fast. */
  | { readonly kind: "throttled"; readonly retryAfterMs: number }
  | { readonly kind: "internal" }
  | { readonly kind: "unavailable" }
  /** A code of the dialect's own, with the HTTP status it should have. */
  | { readonly kind: "code"; readonly code: string; readonly status: number; readonly message: string };

/** An authenticated, decoded request. */
export interface ApiCall {
  /** For faults, limits and counters: `RunInstances`, `POST /servers`. A bounded set of names. */
  readonly operation: string;
  /** Applies it. Refusals are answers; a throw is a bug, or the disk's. */
  run(signal: AbortSignal): ApiResponse | Promise<ApiResponse>;
}

export interface Dialect {
  readonly name: string;
  /** Authenticates and decodes, with no effect on the cloud. A response: turned away at the door. */
  open(request: ApiRequest): ApiCall | { readonly turnedAway: ApiResponse };
  /** `operation` is null when the request was not even decoded. */
  fail(failure: InjectedFailure, operation: string | null): ApiResponse;
  /** Fills a new (or reset) cloud with what every account has; part of a transaction. */
  bootstrap(cloud: Cloud): void;
}
