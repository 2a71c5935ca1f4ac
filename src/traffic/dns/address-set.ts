/** The address records of one name: what a DNS switch sets and what users get. */
import { isIP } from "node:net";
import { OperationalError } from "#kernel/errors.ts";
import type { Clock } from "#kernel/clock.ts";
import type { Backend, RouteTarget } from "#traffic/traffic-switch.ts";
import { addressBytes, addressText } from "#wire/dns/dns-address.ts";
import { classes, opcodes, recordTypes, responseCodeName, responseCodes } from "#wire/dns/dns-message.ts";
import { DnsFormatError, encodeName, isWithin } from "#wire/dns/dns-name.ts";
import { askDns, type DnsServer } from "./dns-client.ts";

/** The name that users resolve, and what its records hold. */
export interface DnsNameConfig {
  /** Absolute, e.g. `ex.test.` (a missing last dot is added). */
  readonly zone: string;
  readonly name: string;
  /** Seconds; how long resolvers may go on with the old set after a switch. */
  readonly ttlSeconds: number;
  /** The port that users of the name connect to: address records cannot change it. */
  readonly port: number;
}

export function absolute(name: string): string {
  return (name.endsWith(".") ? name : `${name}.`).toLowerCase();
}

/** Throws `config.invalid`. */
export function checkDnsName(config: DnsNameConfig): void {
  const invalid = (what: string): never => {
    throw new OperationalError("config.invalid", `the DNS switch's configuration is refused: ${what}`);
  };
  try {
    encodeName(config.zone);
    if (!isWithin(absolute(config.name), absolute(config.zone)))
      invalid(`${config.name} is not in the zone ${config.zone}`);
  } catch (error) {
    if (!(error instanceof DnsFormatError)) throw error;
    invalid(error.message);
  }
  if (!Number.isInteger(config.ttlSeconds) || config.ttlSeconds < 0 || config.ttlSeconds > 86_400)
    invalid("ttlSeconds is not an integer from 0 to 86400");
}

/** The addresses that a target means; throws `input.invalid` for what addresses cannot say. */
export function addressesOf(target: RouteTarget, config: DnsNameConfig): string[] {
  const invalid = (what: string): never => {
    throw new OperationalError("input.invalid", `the target cannot be put into DNS: ${what}`);
  };
  const serving = target.backends.filter((backend) => backend.weight !== 0);
  const weights = new Set(serving.map((backend) => backend.weight ?? 1));
  if (weights.size > 1) invalid("address records have no weights; give every backend the same");
  for (const backend of serving) {
    if (isIP(backend.host) === 0 || backend.host.includes("%"))
      invalid(`backend ${backend.id} is ${backend.host}, which is no IP address`);
    if (backend.port !== config.port)
      invalid(
        `backend ${backend.id} is on port ${backend.port}, and users of ${config.name} connect to ${config.port}`,
      );
  }
  return [...new Set(serving.map((backend) => addressText(addressBytes(backend.host))))].sort();
}

export function backendsOf(addresses: readonly string[], port: number): Backend[] {
  return addresses.map((host) => ({ id: host, host, port }));
}

export interface LookupPorts {
  readonly clock: Clock;
  readonly timeoutMs: number;
}

async function lookupType(
  server: DnsServer,
  name: string,
  type: number,
  ports: LookupPorts,
  signal: AbortSignal,
): Promise<{ readonly addresses: string[]; readonly alias: boolean }> {
  const answer = await askDns(
    {
      server,
      timeoutMs: ports.timeoutMs,
      nowMs: () => ports.clock.now(),
      message: {
        response: false,
        opcode: opcodes.QUERY,
        authoritative: false,
        truncated: false,
        code: 0,
        questions: [{ name, type, class: classes.IN }],
        answers: [],
        authorities: [],
        additionals: [],
      },
    },
    signal,
  );
  if (answer.code === responseCodes.NXDOMAIN) return { addresses: [], alias: false };
  if (answer.code !== responseCodes.NOERROR || !answer.authoritative)
    throw new OperationalError(
      "traffic.refused",
      `the DNS server ${server.host} port ${server.port} does not answer for ${name} with authority: check the zone there`,
      {
        detail: `${responseCodeName(answer.code)}, authoritative: ${answer.authoritative}`,
        outcome: "unknown",
      },
    );
  const own = answer.answers.filter((record) => record.name === name);
  return {
    addresses: own.filter((record) => record.type === type).map((record) => addressText(record.data)),
    alias: own.some((record) => record.type === recordTypes.CNAME),
  };
}

/** The addresses of `name` as the server gives them to users, sorted. */
export async function lookupAddresses(
  server: DnsServer,
  name: string,
  ports: LookupPorts,
  signal: AbortSignal,
): Promise<string[]> {
  const v4 = await lookupType(server, name, recordTypes.A, ports, signal);
  const v6 = await lookupType(server, name, recordTypes.AAAA, ports, signal);
  if (v4.alias || v6.alias)
    throw new OperationalError(
      "traffic.refused",
      `${name} is an alias (CNAME): address records cannot stand beside it; switch the name that it points to`,
      { outcome: "not_applied" },
    );
  return [...v4.addresses, ...v6.addresses].sort();
}

const POLL_MS = 50;

/** Asks every server until all give the new set; throws `traffic.unreachable` (outcome `applied`) after `visibleMs`. */
export async function awaitVisible(
  servers: readonly DnsServer[],
  name: string,
  wanted: readonly string[],
  ports: LookupPorts & { readonly visibleMs: number },
  signal: AbortSignal,
): Promise<void> {
  const end = ports.clock.monotonicMs() + ports.visibleMs;
  for (const server of servers) {
    for (;;) {
      const found = await lookupAddresses(server, name, ports, signal);
      if (found.join() === wanted.join()) break;
      if (ports.clock.monotonicMs() >= end)
        throw new OperationalError(
          "traffic.unreachable",
          `the DNS server ${server.host} port ${server.port} still gives the old addresses of ${name} ` +
            `${ports.visibleMs} ms after the change: check its caches and zone transfers`,
          { outcome: "applied", detail: `wanted ${wanted.join(" ")}; found ${found.join(" ")}` },
        );
      await ports.clock.sleep(POLL_MS, signal);
    }
  }
}
