/**
 * What a dialect is to the rest of devcloud: it turns an HTTP request into one named call on the core, and injected
 * failures into answers that its clients know. It keeps no state that matters: that is the core's.
 */
import type { Secret } from "#kernel/secret.ts";
import type { Catalog, Cloud, IdScheme } from "./cloud.ts";
import type { Compute } from "./compute.ts";
import type { Quotas } from "./quotas.ts";
import type { Snapshots } from "./snapshots.ts";

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

/** The one account of the cloud. */
export interface Account {
  /** EC2: twelve digits. OpenStack: the project's id. */
  readonly id: string;
  /** EC2: access key id. OpenStack: user name. */
  readonly user: string;
  /** EC2: secret access key. OpenStack: password. */
  readonly secret: Secret;
}

/** A dialect before there is a cloud: start-devcloud.ts keeps one of each. */
export interface DialectKind {
  readonly name: string;
  readonly ids: IdScheme;
  readonly defaults: {
    readonly region: string;
    readonly user: string;
    readonly accountId: string;
    /** Where they differ from the core's. */
    readonly quotas?: Partial<Quotas>;
  };
  catalog(region: string): Catalog;
  open(cloud: Cloud, compute: Compute, account: Account, snapshots: Snapshots): Promise<Dialect>;
  /** Content of the file (0600) that the dialect's own clients read their credentials from. */
  credentials(account: Account, region: string, endpoint: string): string;
}
