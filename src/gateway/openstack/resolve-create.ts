/** What became of a create: whether the cloud has one such resource that nobody else made. */
import { includes, isRecord } from "./body-match.ts";
import { basePathOf, readPath } from "./cloud-lookup.ts";
import { type Member, singleMember } from "./recorded-request.ts";
import type { Inquiry, Trace } from "./resolve-trace.ts";

type Item = Readonly<Record<string, unknown>>;

interface Kind {
  /** Below the service's base. */
  readonly list: string;
  readonly plural: string;
  /** Members of the request that every item of the list must show just so: names and ids. */
  readonly filters: readonly string[];
  /** Others that tell items apart; the service may write them in another form (`6` for `tcp`). */
  readonly compared: readonly string[];
}

const neutron = (plural: string, filters: readonly string[], compared: readonly string[] = []): Kind => ({
  list: `/${plural.replaceAll("_", "-")}`,
  plural,
  filters,
  compared,
});

const kinds: ReadonlyMap<string, Kind> = new Map([
  ["compute server", { list: "/servers/detail", plural: "servers", filters: ["name"], compared: [] }],
  [
    "volume volume",
    {
      list: "/volumes/detail",
      plural: "volumes",
      filters: ["name"],
      compared: ["size", "availability_zone"],
    },
  ],
  [
    "volume snapshot",
    { list: "/snapshots/detail", plural: "snapshots", filters: ["name", "volume_id"], compared: [] },
  ],
  ["network network", neutron("networks", ["name"])],
  ["network subnet", neutron("subnets", ["name", "network_id"], ["cidr"])],
  ["network router", neutron("routers", ["name"])],
  ["network port", neutron("ports", ["name", "network_id"], ["mac_address"])],
  ["network security_group", neutron("security_groups", ["name", "description"])],
  [
    "network security_group_rule",
    neutron(
      "security_group_rules",
      ["security_group_id", "direction"],
      ["protocol", "port_range_min", "port_range_max", "remote_ip_prefix", "remote_group_id"],
    ),
  ],
  ["network floatingip", neutron("floatingips", ["floating_network_id"], ["port_id", "description"])],
]);

/** By how much the cloud's clock may be behind the gateway's, in milliseconds; its times have whole seconds. */
const skewMs = 30_000;
const maxPages = 100;

export async function resolveCreate(inquiry: Inquiry): Promise<Trace> {
  const { request } = inquiry;
  const member = singleMember(request.body);
  if (member?.noun === "keypair") {
    await inquiry.hold(String(member.value["name"]));
    return traceOfKeyPair(inquiry, member.value);
  }
  const kind = kinds.get(`${request.service} ${member?.noun ?? ""}`);
  if (member === undefined || kind === undefined) {
    return { trace: "unclear", why: "this release does not know how to look for what it makes" };
  }
  const found = await traceInList(inquiry, kind, member);
  const id = found.trace === "applied" ? singleMember(found.body)?.value["id"] : undefined;
  if (typeof id !== "string") return found;
  // Somebody who saw it in the cloud may be changing it: looked at again when nobody does.
  await inquiry.hold(id);
  return traceInList(inquiry, kind, member);
}

async function traceInList(inquiry: Inquiry, kind: Kind, member: Member): Promise<Trace> {
  const firm = pick(member.value, kind.filters);
  const listed = await listOf(inquiry, kind, firm);
  // Only after the answer: what it shows of other commands is recorded by then.
  const knownIds = await inquiry.knownIds();
  const since = inquiry.intent.at - skewMs;
  const near = listed.filter(
    (item) => !knownIds.has(String(item["id"])) && includes(item, firm) === "yes" && isSince(item, since),
  );
  if (near.length === 0) return { trace: "none" };
  const exact = near.filter((item) => includes(item, pick(member.value, kind.compared)) === "yes");
  const mine = exact.length === 0 ? near : exact;
  const [only, second] = mine;
  const several = Number(member.value["max_count"] ?? member.value["min_count"] ?? 1) > 1;
  if (only === undefined || exact.length === 0 || second !== undefined || several) {
    const ids = mine
      .map((item) => String(item["id"]))
      .slice(0, 5)
      .join(", ");
    return { trace: "unclear", why: `the cloud has what it could have made, and it is not certain (${ids})` };
  }
  return { trace: "applied", body: { [member.noun]: only } };
}

function pick(value: Item, names: readonly string[]): Item {
  return Object.fromEntries(
    names.flatMap((name) => (value[name] === undefined || value[name] === null ? [] : [[name, value[name]]])),
  );
}

/** Without a time of its own, an item could be of any age: it counts, so that at worst there are several. */
function isSince(item: Item, at: number): boolean {
  const text = item["created_at"] ?? item["created"];
  if (typeof text !== "string") return true;
  // Cinder's and Neutron's times have no zone, and are in UTC.
  const created = Date.parse(/Z$|[+-]\d\d:?\d\d$/.test(text) ? text : `${text}Z`);
  return Number.isNaN(created) || created >= at;
}

async function listOf({ ask, request, intent }: Inquiry, kind: Kind, firm: Item): Promise<Item[]> {
  const query = new URLSearchParams();
  // Nova takes a name for a regular expression, but can leave out what is older.
  if (kind.plural === "servers") query.set("changes-since", new Date(intent.at - skewMs).toISOString());
  else {
    for (const [name, value] of Object.entries(firm)) {
      if (typeof value === "string") query.set(name, value);
    }
  }
  const items: Item[] = [];
  for (let page = 0; page < maxPages; page += 1) {
    const text = query.toString();
    const path = `${basePathOf(request.service, kind.list)}${text === "" ? "" : `?${text}`}`;
    const answer = await readPath(ask, path);
    const listed: unknown = answer.found && isRecord(answer.body) ? answer.body[kind.plural] : undefined;
    const more = Array.isArray(listed) ? listed.filter(isRecord) : [];
    items.push(...more);
    const last = more.at(-1)?.["id"];
    if (typeof last !== "string" || !hasNext(answer.found ? answer.body : undefined, kind)) break;
    query.set("marker", last);
  }
  return items;
}

function hasNext(body: unknown, kind: Kind): boolean {
  const links: unknown = isRecord(body) ? body[`${kind.plural}_links`] : undefined;
  return Array.isArray(links) && links.some((link) => isRecord(link) && link["rel"] === "next");
}

/** A name exists once: one with another key, or older than the command, is why it was refused. */
async function traceOfKeyPair({ ask, intent }: Inquiry, asked: Item): Promise<Trace> {
  const path = basePathOf("compute", `/os-keypairs/${encodeURIComponent(String(asked["name"]))}`);
  const answer = await readPath(ask, path);
  const pair = answer.found ? singleMember(answer.body)?.value : undefined;
  if (pair === undefined) return { trace: "none" };
  const key = asked["public_key"];
  const same = typeof key !== "string" || String(pair["public_key"]).trim() === key.trim();
  const mine = same && isSince(pair, intent.at - skewMs);
  return mine ? { trace: "applied", body: { keypair: pair } } : { trace: "none" };
}
