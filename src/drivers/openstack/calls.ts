/** The calls of one contract operation: typed answers, listings page by page, waits; all within one signal. */
import { z } from "zod";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError, isOperational } from "#kernel/errors.ts";
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import { decodeBody } from "#wire/openstack/openstack-json.ts";
import { abortedError } from "./http-client.ts";
import type { HttpAnswer } from "./http-client.ts";
import type { OpenstackSession, SessionCall } from "./openstack-session.ts";

export type QueryItems = Readonly<Record<string, string | readonly string[] | undefined>>;

export interface CallsContext {
  readonly session: OpenstackSession;
  readonly clock: Clock;
  readonly pageSize: number;
}

export type ChangeMethod = "POST" | "PUT" | "PATCH" | "DELETE";

const linksSchema = z.array(z.object({ rel: z.string() })).nullish();

function query(items: QueryItems | undefined): URLSearchParams | undefined {
  if (items === undefined) return undefined;
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(items)) {
    if (value === undefined) continue;
    for (const one of typeof value === "string" ? [value] : value) search.append(name, one);
  }
  return search;
}

export class Calls {
  readonly #context: CallsContext;
  readonly signal: AbortSignal;
  /** Changes that were sent and may still be under way at the cloud. */
  readonly #pending: Promise<unknown>[] = [];

  constructor(context: CallsContext, signal: AbortSignal) {
    this.#context = context;
    this.signal = signal;
  }

  /** Ends when every change that was sent has its answer, or can have none any more. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#pending);
  }

  async projectId(): Promise<string> {
    return (await this.#context.session.identity(this.signal)).projectId;
  }

  async get<T>(
    service: OpenstackService,
    path: string,
    schema: z.ZodType<T>,
    items?: QueryItems,
  ): Promise<T> {
    const search = query(items);
    const call = {
      service,
      method: "GET",
      path,
      ...(search === undefined ? {} : { query: search }),
    } as const;
    return this.#decoded(call, await this.#send(call), schema);
  }

  /** `undefined`: the cloud says that there is none. */
  async find<T>(service: OpenstackService, path: string, schema: z.ZodType<T>): Promise<T | undefined> {
    try {
      return await this.get(service, path, schema);
    } catch (error) {
      if (isOperational(error, "cloud.not_found")) return undefined;
      throw error;
    }
  }

  async change<T>(
    method: ChangeMethod,
    service: OpenstackService,
    path: string,
    body: unknown,
    schema: z.ZodType<T>,
  ): Promise<T> {
    const call = { service, method, path, ...(body === undefined ? {} : { body }) };
    return this.#decoded(call, await this.#send(call), schema);
  }

  /** A change whose answer says nothing that is needed. */
  async act(
    method: ChangeMethod,
    service: OpenstackService,
    path: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
  ): Promise<void> {
    await this.#send({
      service,
      method,
      path,
      ...(body === undefined ? {} : { body }),
      ...(headers === undefined ? {} : { headers }),
    });
  }

  /** `false`: it was not there. */
  async remove(service: OpenstackService, path: string): Promise<boolean> {
    try {
      await this.act("DELETE", service, path);
      return true;
    } catch (error) {
      if (isOperational(error, "cloud.not_found")) return false;
      throw error;
    }
  }

  /**
   * Pages of a collection, by marker. The links that say "next" are believed as to whether, not as to where; a
   * cloud without them is asked until a page is short.
   */
  async *pages<T>(
    service: OpenstackService,
    path: string,
    collection: string,
    item: z.ZodType<T>,
    options: { readonly query?: QueryItems; readonly markerOf: (item: T) => string },
  ): AsyncGenerator<T[], void, void> {
    const schema = z.object({
      [collection]: z.array(item),
      [`${collection}_links`]: linksSchema,
      next: z.string().nullish(),
    }) as unknown as z.ZodType<Record<string, unknown>>;
    const limit = this.#context.pageSize;
    let marker: string | undefined;
    for (;;) {
      const answer = await this.get(service, path, schema, {
        ...options.query,
        limit: String(limit),
        marker,
      });
      const page = answer[collection] as T[];
      if (page.length > 0) yield page;
      const last = page.at(-1);
      const links = answer[`${collection}_links`] as z.infer<typeof linksSchema>;
      const more = links?.some(({ rel }) => rel === "next") === true || typeof answer["next"] === "string";
      if (last === undefined || (!more && page.length < limit)) return;
      const next = options.markerOf(last);
      if (next === marker) {
        throw new OperationalError("cloud.protocol", `the cloud's listing of ${collection} does not advance`);
      }
      marker = next;
    }
  }

  async all<T>(
    service: OpenstackService,
    path: string,
    collection: string,
    item: z.ZodType<T>,
    options: { readonly query?: QueryItems; readonly markerOf: (item: T) => string },
  ): Promise<T[]> {
    const found: T[] = [];
    for await (const page of this.pages(service, path, collection, item, options)) found.push(...page);
    return found;
  }

  /** Looks until `look` answers something, ever less often. Ends with the signal only. */
  async until<T>(look: () => Promise<T | undefined>): Promise<T> {
    for (let waitMs = 200; ; waitMs = Math.min(2_000, waitMs * 1.5)) {
      const seen = await look();
      if (seen !== undefined) return seen;
      try {
        await this.#context.clock.sleep(waitMs, this.signal);
      } catch (error) {
        if (this.signal.aborted) throw abortedError(this.signal, true);
        throw error;
      }
    }
  }

  #send(call: Omit<SessionCall, "signal" | "settled">): Promise<HttpAnswer> {
    return this.#context.session.request({
      ...call,
      signal: this.signal,
      settled: (end) => this.#pending.push(end),
    });
  }

  #decoded<T>(
    call: { readonly service: OpenstackService; readonly method: string; readonly path: string },
    answer: HttpAnswer,
    schema: z.ZodType<T>,
  ): T {
    const decoded = decodeBody(schema, answer.text);
    if (decoded.ok) return decoded.value;
    throw new OperationalError(
      "cloud.protocol",
      `the ${call.service} service's answer to ${call.method} ${call.path} cannot be read`,
      { outcome: call.method === "GET" ? "not_applied" : "unknown", detail: decoded.reason },
    );
  }
}
