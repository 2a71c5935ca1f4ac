// Compares a cloud with what its owner was promised, from the cloud's own records and not through any driver of ours.
import { readFileSync } from "node:fs";
import { request } from "undici";
import type { Expectation } from "./shop.ts";

interface Named {
  readonly id: string;
  readonly name: string;
  readonly tags: Readonly<Record<string, string>>;
}

interface ServerRow extends Named {
  readonly type: string;
  readonly state: string;
  readonly rootDevice: string;
  /** The loopback address on which its own process or guest listens. */
  readonly hostAddress: string;
}

export interface CloudDump {
  readonly tables: {
    readonly server: readonly ServerRow[];
    readonly network: readonly Named[];
    readonly subnet: readonly Named[];
    readonly group: readonly Named[];
    readonly rule: readonly { groupId: string; direction: string; fromPort: number | null }[];
    readonly keyPair: readonly Named[];
    readonly volume: readonly (Named & { attachment: { serverId: string; device: string } | null })[];
    readonly address: readonly (Named & { association: { serverId: string | null } | null })[];
  };
}

/** Through the cloud's admin door, which only tests and demos have. */
export async function readCloud(endpoint: string, adminTokenFile: string): Promise<CloudDump> {
  const { statusCode, body } = await request(new URL("/_devcloud/state", endpoint), {
    headers: { authorization: `Bearer ${readFileSync(adminTokenFile, "utf8").trim()}` },
  });
  const text = await body.text();
  if (statusCode !== 200)
    throw new Error(`${endpoint} does not tell its state: ${statusCode} ${text.slice(0, 200)}`);
  return JSON.parse(text) as CloudDump;
}

export function liveServers(dump: CloudDump): readonly ServerRow[] {
  return dump.tables.server.filter(({ state }) => state === "running" || state === "pending");
}

function nameOf(one: Named): string {
  return one.name === "" ? (one.tags["Name"] ?? "") : one.name;
}

export interface Verdict {
  /** What was acknowledged and is not there, in words. */
  readonly lost: readonly string[];
  /** Servers beyond the first one of each name. */
  readonly duplicates: readonly string[];
}

export function compare(expected: Expectation, dump: CloudDump): Verdict {
  const { tables } = dump;
  const lost: string[] = [];
  const has = (rows: readonly Named[], what: string, names: Iterable<string>): void => {
    for (const name of names) if (!rows.some((row) => nameOf(row) === name)) lost.push(`${what} ${name}`);
  };
  has(tables.network, "network", expected.networks);
  has(tables.subnet, "subnet", expected.subnets);
  has(tables.keyPair, "key pair", expected.keys);
  has(tables.group, "security group", expected.groups.keys());
  for (const [name, ports] of expected.groups) {
    const group = tables.group.find((row) => nameOf(row) === name);
    const open = tables.rule.filter((rule) => rule.groupId === group?.id && rule.direction === "ingress");
    const have = new Set(open.map(({ fromPort }) => fromPort));
    const same = have.size === ports.size && [...ports].every((port) => have.has(port));
    if (group !== undefined && !same)
      lost.push(`rules of ${name}: ${[...have].join(",")} instead of ${[...ports].join(",")}`);
  }
  const servers = liveServers(dump);
  const byName = new Map<string, ServerRow[]>();
  for (const server of servers) byName.set(nameOf(server), [...(byName.get(nameOf(server)) ?? []), server]);
  const typesOf = new Map<string, Set<string>>();
  for (const server of expected.servers.values()) {
    const [found] = byName.get(server.name) ?? [];
    if (found === undefined) {
      lost.push(`server ${server.name}`);
      continue;
    }
    typesOf.set(server.type, (typesOf.get(server.type) ?? new Set()).add(found.type));
    for (const [key, value] of Object.entries(server.tags)) {
      const have = key === "Name" ? nameOf(found) : found.tags[key];
      if (have !== value) lost.push(`tag ${key}=${value} of ${server.name} (${have ?? "none"})`);
    }
    // An EC2 shows the disk that a server came with as a volume; it is none that the owner made.
    const volumes = tables.volume.filter(
      ({ attachment }) => attachment?.serverId === found.id && attachment.device !== found.rootDevice,
    ).length;
    if (volumes !== server.volumes)
      lost.push(`volumes of ${server.name}: ${volumes} instead of ${server.volumes}`);
    const address = tables.address.some(({ association }) => association?.serverId === found.id);
    if (server.address && !address) lost.push(`address of ${server.name}`);
  }
  // Two sizes of the owner's must not have become a mixture: a resize that was lost would show as one.
  for (const [type, there] of typesOf)
    if (there.size > 1) lost.push(`size ${type} became ${[...there].join(" and ")}`);
  const duplicates = [...byName].flatMap(([name, rows]) => rows.slice(1).map(() => name));
  const unexpected = servers.filter((row) => !expected.servers.has(nameOf(row))).map(nameOf);
  return { lost, duplicates: [...duplicates, ...unexpected] };
}
