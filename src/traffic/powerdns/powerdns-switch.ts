/** Switches a name's A and AAAA records through PowerDNS's HTTP API (doc.powerdns.com, "Zones endpoint"). */
import { request } from "undici";
import { type Clock, systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Secret } from "#kernel/secret.ts";
import {
  absolute,
  addressesOf,
  awaitVisible,
  backendsOf,
  checkDnsName,
  type DnsNameConfig,
} from "#traffic/dns/address-set.ts";
import type { DnsServer } from "#traffic/dns/dns-client.ts";
import { type EpochRecord, takeEpoch } from "#traffic/epoch-record.ts";
import { oneAtATime } from "#traffic/one-at-a-time.ts";
import {
  checkTarget,
  type RouteTarget,
  type TrafficReading,
  type TrafficSwitch,
} from "#traffic/traffic-switch.ts";
import { addressBytes, addressText } from "#wire/dns/dns-address.ts";

export interface PowerdnsConfig extends DnsNameConfig {
  /** E.g. `http://10.0.0.5:8081`. */
  readonly url: string;
  readonly apiKey: Secret;
  /** PowerDNS's own name of the server. Default `localhost`, the only one that an authoritative server has. */
  readonly serverId?: string;
  /** Asked by DNS until they give the new set; empty: PowerDNS's own word is taken. */
  readonly authoritative: readonly DnsServer[];
  /** For one request. Default 3000. */
  readonly timeoutMs?: number;
  /** For the new set to be visible everywhere. Default 10000. */
  readonly visibleMs?: number;
}

const MAX_ANSWER_BYTES = 8 * 1024 * 1024;

interface RecordSet {
  readonly name: string;
  readonly type: string;
  readonly records: readonly { readonly content: string; readonly disabled?: boolean }[];
}

/** The PATCH body: one transaction at the server that sets one family and deletes the other if it has none. */
export function planPatch(config: DnsNameConfig, addresses: readonly string[]): object {
  const name = absolute(config.name);
  const setOf = (type: "A" | "AAAA"): object => {
    const own = addresses.filter((one) => (addressBytes(one).length === 4) === (type === "A"));
    if (own.length === 0) return { name, type, changetype: "DELETE" };
    const records = own.map((content) => ({ content, disabled: false }));
    return { name, type, ttl: config.ttlSeconds, changetype: "REPLACE", records };
  };
  return { rrsets: [setOf("A"), setOf("AAAA")] };
}

export class PowerdnsSwitch implements TrafficSwitch {
  readonly kind = "powerdns";
  readonly #config: PowerdnsConfig;
  readonly #epochs: EpochRecord;
  readonly #queue = oneAtATime();
  readonly #clock: Clock;
  readonly #zoneUrl: string;

  constructor(config: PowerdnsConfig, ports: { readonly epochs: EpochRecord; readonly clock?: Clock }) {
    checkDnsName(config);
    if (!URL.canParse(config.url) || !/^https?:/.test(config.url))
      throw new OperationalError(
        "config.invalid",
        `the PowerDNS url ${config.url} is no http or https address`,
      );
    this.#config = config;
    this.#epochs = ports.epochs;
    this.#clock = ports.clock ?? systemClock;
    const server = encodeURIComponent(config.serverId ?? "localhost");
    const zone = encodeURIComponent(absolute(config.zone));
    this.#zoneUrl = `${config.url.replace(/\/$/, "")}/api/v1/servers/${server}/zones/${zone}`;
  }

  apply(target: RouteTarget, signal: AbortSignal): Promise<void> {
    return this.#queue.run(() => this.#apply(target, signal));
  }

  async #apply(target: RouteTarget, signal: AbortSignal): Promise<void> {
    checkTarget(target);
    const config = this.#config;
    const addresses = addressesOf(target, config);
    const current = await this.#addresses(signal);
    await takeEpoch(this.#epochs, config.name, target.epoch);
    if (current.join() !== addresses.join()) await this.#ask("PATCH", planPatch(config, addresses), signal);
    await awaitVisible(
      config.authoritative,
      absolute(config.name),
      addresses,
      { clock: this.#clock, timeoutMs: this.#timeoutMs, visibleMs: config.visibleMs ?? 10_000 },
      signal,
    );
  }

  async read(signal: AbortSignal): Promise<TrafficReading> {
    return { backends: backendsOf(await this.#addresses(signal), this.#config.port) };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #timeoutMs(): number {
    return this.#config.timeoutMs ?? 3_000;
  }

  async #addresses(signal: AbortSignal): Promise<string[]> {
    const name = absolute(this.#config.name);
    const text = await this.#ask("GET", undefined, signal, `?rrset_name=${encodeURIComponent(name)}`);
    const sets = (JSON.parse(text) as { rrsets?: RecordSet[] }).rrsets ?? [];
    // Older servers do not know `rrset_name` and give the whole zone.
    return sets
      .filter((set) => set.name.toLowerCase() === name && (set.type === "A" || set.type === "AAAA"))
      .flatMap((set) => set.records.filter((record) => record.disabled !== true))
      .map((record) => addressText(addressBytes(record.content)))
      .sort();
  }

  async #ask(
    method: "GET" | "PATCH",
    body: object | undefined,
    signal: AbortSignal,
    query = "",
  ): Promise<string> {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(this.#timeoutMs)]);
    const outcome = method === "PATCH" ? "unknown" : "not_applied";
    let status: number;
    let text: string;
    try {
      const answer = await request(`${this.#zoneUrl}${query}`, {
        method,
        signal: deadline,
        headers: { "x-api-key": this.#config.apiKey.reveal(), "content-type": "application/json" },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      status = answer.statusCode;
      text = await boundedText(answer.body);
    } catch (cause) {
      if (signal.aborted)
        throw new OperationalError("aborted", "the request to PowerDNS was aborted", { outcome, cause });
      throw new OperationalError(
        "traffic.unreachable",
        `PowerDNS at ${this.#config.url} does not answer: check that its webserver and API run and are reachable from here`,
        { outcome, detail: String(cause), cause },
      );
    }
    if (status === 200 || status === 204) return text;
    throw this.#refusal(status, text);
  }

  #refusal(status: number, text: string): OperationalError {
    const { zone, url } = this.#config;
    const options = { remoteCode: String(status), detail: text.slice(0, 500) };
    if (status === 401 || status === 403)
      return new OperationalError(
        "auth.invalid",
        `PowerDNS at ${url} refuses the API key: check \`api-key\` there`,
        options,
      );
    if (status === 404)
      return new OperationalError(
        "traffic.refused",
        `PowerDNS at ${url} has no zone ${zone}: create it there`,
        options,
      );
    if (status === 422 || status === 400 || status === 409)
      return new OperationalError(
        "traffic.refused",
        `PowerDNS refuses the records of ${this.#config.name}: see the log for its words (a CNAME cannot stand beside them)`,
        options,
      );
    return new OperationalError(
      "traffic.refused",
      `PowerDNS at ${url} failed with status ${status}: see its log`,
      {
        ...options,
        outcome: "unknown",
        retry: "later",
      },
    );
  }
}

async function boundedText(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > MAX_ANSWER_BYTES) throw new Error(`an answer of more than ${MAX_ANSWER_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
