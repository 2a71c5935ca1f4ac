/**
 * The contract of a gateway dialect: one API protocol that users' tools speak (AWS query, OpenStack REST). A dialect knows
 * the protocol and nothing else: it sends nothing, stores nothing and holds no lock. The gateway does that, the same way for
 * every dialect, so that the promise (intent durable, then forwarded, then outcome durable, then answered) is kept in one place.
 *
 * Guarantees a dialect gives
 * - What is forwarded is exactly what was authenticated and decoded: parameters that it did not understand are refused,
 *   or recorded.
 * - What only reads is a `read`; everything else is a `change`. In doubt, a change.
 * - `input` of a change holds no secret, and enough to find out later what became of the command.
 * - Every problem has an answer in the protocol's own form, so that clients raise their own typed errors.
 */
import type { EnvironmentId } from "#kernel/ids.ts";
import type { Json } from "#kernel/json.ts";
import type { Change } from "#model/change.ts";
import type { CommandResult, Intent, ServiceName } from "#model/command.ts";
import type { Gap } from "#model/gap.ts";
import type { LockKeys } from "./resource-locks.ts";

export interface RequestHead {
  readonly method: string;
  /** The request target as received: path and query. */
  readonly target: string;
  /** Lower-case names, no prototype; a header that came on several lines is an array. */
  readonly headers: RequestHeaders;
}

export type RequestHeaders = Readonly<Record<string, string | readonly string[] | undefined>>;

export interface GatewayRequest extends RequestHead {
  readonly body: Buffer;
}

/** Names and values in turn. */
export type FlatHeaders = readonly string[];

export interface Answer {
  readonly status: number;
  readonly headers: FlatHeaders;
  readonly body: Buffer | string;
}

export type Rights = "read-only" | "change";

export interface Caller {
  /** Access key id or user name: goes into the journal. */
  readonly principal: string;
  readonly environment: EnvironmentId;
  readonly rights: Rights;
}

/** Classifying hangs on the proof of who asks, so that it cannot come first. */
export type Authentication =
  | {
      readonly ok: true;
      readonly caller: Caller;
      classify(upstreams: Upstreams): Classified | Promise<Classified>;
    }
  | { readonly ok: false; readonly answer: Answer };

/** A service that a dialect forwards to: recorded ones, and ones that are only read (`sts`). */
export type UpstreamName = ServiceName | "sts";

/** A request to the cloud, before it is signed. */
export interface OutgoingRequest {
  readonly method: string;
  /** Below the endpoint's own path; starts with `/`. */
  readonly path: string;
  readonly headers: FlatHeaders;
  readonly body: Buffer | string;
}

/** The same, ready to be sent: authenticated with the cloud's real credentials. */
export interface SignedRequest {
  readonly method: string;
  /** From the root of the endpoint's host. */
  readonly path: string;
  readonly headers: FlatHeaders;
  readonly body: Buffer | string;
  /** `https://compute.example:8774`, where it is not the upstream's endpoint: a cloud may have a host for each service. */
  readonly origin?: string;
}

/** Real credentials of a cloud; which kind is the dialect's own business. Secrets inside are `Secret`. */
export interface UpstreamCredentials {
  readonly kind: string;
}

/** Where one service of an environment's active site answers. */
export interface UpstreamService {
  /** `https://ec2.eu-west-1.amazonaws.com` */
  readonly endpoint: string;
  readonly region: string;
  readonly credentials: UpstreamCredentials;
  /** PEM certificates to trust instead of the system's. */
  readonly ca?: string;
}

/** The services of one environment's active site. */
export type Upstreams = ReadonlyMap<UpstreamName, UpstreamService>;

/** A cloud's answer, read whole. */
export interface CloudAnswer {
  readonly status: number;
  readonly headers: FlatHeaders;
  readonly body: Buffer;
}

/** An answer on its way to the caller with the cloud's own addresses in it replaced; `push` and `end` give what may go on now. */
export interface EditedAnswer {
  readonly headers: FlatHeaders;
  push(chunk: Buffer): Buffer;
  end(): Buffer;
}

/** Undefined: this answer goes on as it is. */
export type EditAnswer = (headers: FlatHeaders) => EditedAnswer | undefined;

/** What a cloud's answer says about a change. */
export interface Verdict {
  /** `unknown`: the answer does not tell (a server error, or a document that is not the protocol's). */
  readonly result: CommandResult;
  readonly errorCode: string | null;
  readonly changes: readonly Change[];
  readonly gaps: readonly Gap[];
}

/** `undecidable`: the cloud answered, and still it cannot be known; the gaps say so to the user. */
export type Resolution =
  | { readonly result: "applied"; readonly changes: readonly Change[]; readonly gaps: readonly Gap[] }
  | { readonly result: "refused"; readonly errorCode: string | null }
  | { readonly result: "undecidable"; readonly gaps: readonly Gap[] };

export interface ChangeCommand {
  readonly service: ServiceName;
  readonly operation: string;
  readonly input: Json;
  /** The idempotency token that the caller gave, if any. */
  readonly callerToken: string | null;
  /** The operation has a token: the gateway gives one where the caller did not. */
  readonly takesToken: boolean;
  readonly locks: LockKeys;
  /** Absent: the cloud's answer goes on as it is. */
  readonly edit?: EditAnswer;
  outgoing(token: string | null): OutgoingRequest;
  /** May ask the cloud for what its answer leaves out. A rejection counts as `unknown`. */
  interpret(answer: CloudAnswer, ask: AskCloud): Verdict | Promise<Verdict>;
}

export type Classified =
  | { readonly kind: "answer"; readonly answer: Answer }
  | {
      readonly kind: "read";
      readonly service: UpstreamName;
      readonly operation: string;
      readonly outgoing: OutgoingRequest;
      readonly edit?: EditAnswer;
    }
  | { readonly kind: "change"; readonly command: ChangeCommand };

/** What goes wrong in the gateway itself, apart from any protocol. */
export type Problem =
  | { readonly kind: "too_large"; readonly limitBytes: number }
  | { readonly kind: "forbidden"; readonly operation: string; readonly principal: string }
  | { readonly kind: "overloaded"; readonly retryAfterSeconds: number }
  | { readonly kind: "no_upstream"; readonly environment: string; readonly service: string }
  | { readonly kind: "unreachable"; readonly environment: string }
  /** Sent, no answer. */
  | { readonly kind: "no_answer"; readonly environment: string; readonly operation: string }
  /** An earlier command on the same resources, or with the same token, is still open. */
  | { readonly kind: "earlier_open"; readonly environment: string; readonly waitedMs: number }
  /** The intent could not be recorded: nothing was forwarded. */
  | { readonly kind: "not_recorded"; readonly full: boolean }
  /** The cloud answered, its outcome could not be recorded. */
  | { readonly kind: "outcome_not_recorded"; readonly full: boolean }
  | { readonly kind: "fenced"; readonly environment: string; readonly moved: MovedTo | null }
  | { readonly kind: "closing" }
  | { readonly kind: "internal" };

/** Where an environment went. */
export interface MovedTo {
  readonly site: string;
  /** Milliseconds since the Unix epoch. */
  readonly at: number;
  /** What its users should do now, in a sentence. */
  readonly advice?: string;
}

/** Sends one reading request to a service of the environment, signed; rejects with a `cloud.*` error. */
export type AskCloud = (service: UpstreamName, request: OutgoingRequest) => Promise<CloudAnswer>;

export interface ResolveContext {
  readonly ask: AskCloud;
  /**
   * Ids of what other commands made, as far as recorded. Asked after the cloud's answer came, it covers every command that
   * the answer can show: those under way at that time are waited for.
   */
  knownIds(): Promise<ReadonlySet<string>>;
  /**
   * Takes locks that the command does not have, on what it is found to have made, until its outcome is recorded. What was read
   * of it before is to be read again: others may have changed it meanwhile, and theirs are recorded already.
   */
  hold(keys: LockKeys): Promise<void>;
  readonly signal: AbortSignal;
}

export interface Dialect {
  readonly name: string;
  readonly services: readonly UpstreamName[];
  readonly maxBodyBytes: number;
  /** Whether a request is in this protocol. The first dialect that says yes has it; the last one has all others. */
  accepts(head: RequestHead): boolean;
  /** A refusal that needs no body (missing or unknown credentials, a skewed clock); undefined to go on. */
  admit(head: RequestHead): Answer | undefined | Promise<Answer | undefined>;
  authenticate(request: GatewayRequest): Authentication | Promise<Authentication>;
  /** A promise where credentials have to be got first; it rejects with a `cloud.*` error, and then nothing was sent. */
  sign(
    service: UpstreamName,
    request: OutgoingRequest,
    upstream: UpstreamService,
  ): SignedRequest | Promise<SignedRequest>;
  /**
   * Whether the cloud turned the request away, with nothing done, only because credentials that `sign` had put in are no
   * longer good, and signing again gets new ones. The request is then sent once more.
   */
  outlived?(status: number, request: SignedRequest, upstream: UpstreamService): boolean;
  /** The locks of a recorded command, so that after a restart it holds what it held before. */
  locksOf(intent: Intent): LockKeys | Promise<LockKeys>;
  /** Asks the cloud what became of a command. Rejects if the cloud cannot be asked now. */
  resolve(intent: Intent, context: ResolveContext): Promise<Resolution>;
  renderProblem(problem: Problem, head: RequestHead): Answer;
}
