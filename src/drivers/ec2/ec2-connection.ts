/** The client of one EC2 endpoint: one call each time, with time-outs, and the contract's errors. */
import { EC2Client } from "@aws-sdk/client-ec2";
import type { Filter } from "@aws-sdk/client-ec2";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { Secret } from "#kernel/secret.ts";
import { ec2Error } from "./ec2-errors.ts";

export interface Ec2Options {
  /** Absent: the region's own AWS endpoint. */
  readonly endpoint?: string;
  readonly region: string;
  readonly credentials: {
    readonly accessKeyId: string;
    readonly secretAccessKey: Secret;
    readonly sessionToken?: Secret;
  };
  readonly clock: Clock;
  readonly log: Log;
  /** Entries of one listing page; 5 to 1000, as EC2 takes. */
  readonly pageSize?: number;
  /** How long a listing may lag behind a change. Default: 30 s for AWS, 0.25 s for an endpoint of one's own. */
  readonly consistencyMs?: number;
}

export const ec2Concurrency = 64;

interface CallOptions {
  readonly abortSignal: AbortSignal;
}

interface Page {
  readonly NextToken?: string | undefined;
}

/** What every client of the region's services is opened with. */
export function clientOptions({ region, endpoint, credentials }: Ec2Options) {
  const agent = { keepAlive: true, maxSockets: ec2Concurrency };
  return {
    region,
    ...(endpoint === undefined ? {} : { endpoint }),
    credentials: {
      accessKeyId: credentials.accessKeyId,
      secretAccessKey: credentials.secretAccessKey.reveal(),
      ...(credentials.sessionToken === undefined ? {} : { sessionToken: credentials.sessionToken.reveal() }),
    },
    // The contract says who repeats what; the SDK must not repeat behind its back.
    maxAttempts: 1,
    requestHandler: {
      connectionTimeout: 5000,
      requestTimeout: 60_000,
      throwOnRequestTimeout: true,
      httpAgent: agent,
      httpsAgent: agent,
    },
  };
}

export class Ec2Connection {
  readonly clock: Clock;
  readonly endpoint: string;
  readonly region: string;
  readonly pageSize: number;
  readonly consistencyMs: number;
  readonly #client: EC2Client;
  readonly #log: Log;
  #closed = false;

  constructor(options: Ec2Options) {
    const { endpoint, region } = options;
    this.clock = options.clock;
    this.region = region;
    this.endpoint = endpoint ?? `https://ec2.${region}.amazonaws.com`;
    this.pageSize = options.pageSize ?? 500;
    this.consistencyMs = options.consistencyMs ?? (endpoint === undefined ? 30_000 : 250);
    this.#log = options.log;
    this.#client = new EC2Client(clientOptions(options));
  }

  /** Changes something: a lost answer means an unknown outcome. */
  change<T>(
    operation: string,
    signal: AbortSignal,
    run: (client: EC2Client, options: CallOptions) => Promise<T>,
  ): Promise<T> {
    return this.#call(operation, signal, true, run);
  }

  read<T>(
    operation: string,
    signal: AbortSignal,
    run: (client: EC2Client, options: CallOptions) => Promise<T>,
  ): Promise<T> {
    return this.#call(operation, signal, false, run);
  }

  /** Pages of a `Describe...`; each is asked for when the one before was taken. */
  async *pages<P extends Page>(
    operation: string,
    signal: AbortSignal,
    run: (
      client: EC2Client,
      paging: { MaxResults: number; NextToken?: string },
      options: CallOptions,
    ) => Promise<P>,
  ): AsyncIterable<P> {
    let token: string | undefined;
    do {
      const paging = { MaxResults: this.pageSize, ...(token === undefined ? {} : { NextToken: token }) };
      const page = await this.read(operation, signal, (client, options) => run(client, paging, options));
      yield page;
      token = page.NextToken === "" ? undefined : page.NextToken;
    } while (token !== undefined);
  }

  /** Looks until `look` answers something: soon at first, then every two seconds. */
  async until<T>(signal: AbortSignal, look: () => Promise<T | undefined>): Promise<T> {
    for (let waitMs = 20; ; waitMs = Math.min(waitMs * 1.6, 2000)) {
      const seen = await look();
      if (seen !== undefined) return seen;
      await this.clock.sleep(waitMs, signal);
    }
  }

  close(): void {
    this.#closed = true;
    this.#client.destroy();
  }

  async #call<T>(
    operation: string,
    signal: AbortSignal,
    change: boolean,
    run: (client: EC2Client, options: CallOptions) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted();
    if (this.#closed) throw new OperationalError("cloud.unreachable", "the connection to EC2 is closed");
    const startedAt = this.clock.monotonicMs();
    try {
      return await run(this.#client, { abortSignal: signal });
    } catch (error) {
      if (signal.aborted) throw signal.reason as Error;
      const mapped = ec2Error(error, operation, change);
      const ms = Math.round(this.clock.monotonicMs() - startedAt);
      this.#log.debug({ operation, ms, code: mapped.code, detail: mapped.detail }, "EC2 call failed");
      throw mapped;
    }
  }
}

/** A filter's value knows the wildcards `*` and `?`; here, texts mean themselves. */
export function literal(text: string): string {
  return text.replaceAll(/[*?\\]/g, (char) => `\\${char}`);
}

export function filters(values: Readonly<Record<string, string | readonly string[] | undefined>>): Filter[] {
  return Object.entries(values).flatMap(([Name, value]) => {
    if (value === undefined) return [];
    return [{ Name, Values: (typeof value === "string" ? [value] : value).map(literal) }];
  });
}
