/** Switches a name's A and AAAA records by dynamic update (RFC 2136), signed with TSIG (RFC 8945). */
import { type Clock, systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { type EpochRecord, takeEpoch } from "#traffic/epoch-record.ts";
import { oneAtATime } from "#traffic/one-at-a-time.ts";
import {
  checkTarget,
  type RouteTarget,
  type TrafficReading,
  type TrafficSwitch,
} from "#traffic/traffic-switch.ts";
import { addressBytes, addressRecord } from "#wire/dns/dns-address.ts";
import {
  classes,
  type DnsMessage,
  type DnsRecord,
  opcodes,
  recordTypes,
  responseCodeName,
  responseCodes,
} from "#wire/dns/dns-message.ts";
import type { TsigKey } from "#wire/dns/tsig.ts";
import {
  absolute,
  addressesOf,
  awaitVisible,
  backendsOf,
  checkDnsName,
  type DnsNameConfig,
  lookupAddresses,
} from "./address-set.ts";
import { askDns, type DnsServer } from "./dns-client.ts";

export interface DnsUpdateConfig extends DnsNameConfig {
  /** The zone's primary. */
  readonly server: DnsServer;
  readonly key: TsigKey;
  /** Asked until they give the new set; default: the primary alone. Name the secondaries to wait for them too. */
  readonly authoritative?: readonly DnsServer[];
  /** Make the change only if the records are still those that were read just before (RFC 2136, 2.4). */
  readonly onlyIfUnchanged?: boolean;
  /** For one exchange with a server. Default 3000. */
  readonly timeoutMs?: number;
  /** For the new set to be visible everywhere. Default 10000. */
  readonly visibleMs?: number;
}

/** The update message: both address RRsets are deleted and the new records added, which a server does at once. */
export function planUpdate(
  config: DnsNameConfig,
  addresses: readonly string[],
  expected: readonly string[] | undefined,
): Omit<DnsMessage, "id"> {
  const name = absolute(config.name);
  const empty = Buffer.alloc(0);
  const types = [recordTypes.A, recordTypes.AAAA];
  const prerequisites: DnsRecord[] = [];
  if (expected !== undefined) {
    for (const type of types) {
      const values = expected.filter((one) => (addressBytes(one).length === 4) === (type === recordTypes.A));
      if (values.length === 0) prerequisites.push({ name, type, class: classes.NONE, ttl: 0, data: empty });
      else prerequisites.push(...values.map((value) => addressRecord(name, 0, value)));
    }
  }
  return {
    response: false,
    opcode: opcodes.UPDATE,
    authoritative: false,
    truncated: false,
    code: 0,
    questions: [{ name: absolute(config.zone), type: recordTypes.SOA, class: classes.IN }],
    answers: prerequisites,
    authorities: [
      ...types.map((type) => ({ name, type, class: classes.ANY, ttl: 0, data: empty })),
      ...addresses.map((address) => addressRecord(name, config.ttlSeconds, address)),
    ],
    additionals: [],
  };
}

/** What an update's response code means, and what to do; undefined for success. */
export function updateFailure(code: number, config: DnsUpdateConfig): OperationalError | undefined {
  const { zone, key } = config;
  const remoteCode = responseCodeName(code);
  const options = { remoteCode, detail: `update of ${config.name} in ${zone}: ${remoteCode}` };
  switch (code) {
    case responseCodes.NOERROR:
      return undefined;
    case responseCodes.REFUSED:
      return new OperationalError(
        "auth.forbidden",
        `the DNS server refuses updates of ${zone}: allow the key ${key.name} to update it there`,
        options,
      );
    case responseCodes.NOTAUTH:
      return new OperationalError(
        "traffic.refused",
        `the DNS server is not the primary of ${zone}, or does not know the key ${key.name}: check both there`,
        options,
      );
    case responseCodes.NOTZONE:
      return new OperationalError(
        "config.invalid",
        `the DNS server says that ${config.name} is not in the zone ${zone}: name the innermost zone`,
        options,
      );
    case responseCodes.NXRRSET:
    case responseCodes.YXRRSET:
    case responseCodes.NXDOMAIN:
    case responseCodes.YXDOMAIN:
      return new OperationalError(
        "state.conflict",
        `somebody else changed the addresses of ${config.name} at the same time: read them, and apply again`,
        options,
      );
    case responseCodes.SERVFAIL:
      return new OperationalError(
        "traffic.refused",
        `the DNS server failed to write ${zone}: see its log (often the zone's storage is not writable)`,
        { ...options, outcome: "unknown", retry: "later" },
      );
    case responseCodes.NOTIMP:
      return new OperationalError("traffic.refused", "the DNS server knows no dynamic updates", options);
    default:
      return new OperationalError(
        "traffic.refused",
        `the DNS server refused the update with ${remoteCode}`,
        options,
      );
  }
}

export interface DnsSwitchPorts {
  readonly epochs: EpochRecord;
  readonly clock?: Clock;
}

export class DnsUpdateSwitch implements TrafficSwitch {
  readonly kind = "dns-update";
  readonly #config: DnsUpdateConfig;
  readonly #epochs: EpochRecord;
  readonly #queue = oneAtATime();
  readonly #clock: Clock;

  constructor(config: DnsUpdateConfig, ports: DnsSwitchPorts) {
    checkDnsName(config);
    this.#config = config;
    this.#epochs = ports.epochs;
    this.#clock = ports.clock ?? systemClock;
  }

  apply(target: RouteTarget, signal: AbortSignal): Promise<void> {
    return this.#queue.run(() => this.#apply(target, signal));
  }

  async #apply(target: RouteTarget, signal: AbortSignal): Promise<void> {
    checkTarget(target);
    const config = this.#config;
    const addresses = addressesOf(target, config);
    // Asked first: an alias at the name would make the server ignore the update without a word (RFC 2136, 3.4.2.2).
    const current = await this.#lookup(signal);
    await takeEpoch(this.#epochs, config.name, target.epoch);
    if (current.join() !== addresses.join()) await this.#update(addresses, current, signal);
    await awaitVisible(
      config.authoritative ?? [config.server],
      absolute(config.name),
      addresses,
      { clock: this.#clock, timeoutMs: this.#timeoutMs, visibleMs: config.visibleMs ?? 10_000 },
      signal,
    );
  }

  async read(signal: AbortSignal): Promise<TrafficReading> {
    return { backends: backendsOf(await this.#lookup(signal), this.#config.port) };
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

  #lookup(signal: AbortSignal): Promise<string[]> {
    const ports = { clock: this.#clock, timeoutMs: this.#timeoutMs };
    return lookupAddresses(this.#config.server, absolute(this.#config.name), ports, signal);
  }

  async #update(
    addresses: readonly string[],
    current: readonly string[],
    signal: AbortSignal,
  ): Promise<void> {
    const config = this.#config;
    const answer = await askDns(
      {
        server: config.server,
        key: config.key,
        timeoutMs: this.#timeoutMs,
        nowMs: () => this.#clock.now(),
        message: planUpdate(config, addresses, config.onlyIfUnchanged === true ? current : undefined),
      },
      signal,
    );
    const failure = updateFailure(answer.code, config);
    if (failure === undefined) return;
    // A resent datagram meets its own first copy's result: then the change is ours, and done.
    if (failure.code === "state.conflict" && (await this.#lookup(signal)).join() === addresses.join()) return;
    throw failure;
  }
}
