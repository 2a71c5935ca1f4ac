// Compares both clouds and what the control plane believes with what must be, from the clouds' own records.
import type { EnvironmentPhase, RunKind } from "#model/run.ts";
import type { EngineUnderTest, Side } from "./engine-under-test.ts";
import type { Expected } from "./small-shop.ts";
import type { CloudDump, TwoClouds } from "./two-clouds.ts";
import { until } from "./until.ts";

export interface Ending {
  readonly kind: RunKind;
  readonly serving: Side;
  readonly phase: EnvironmentPhase;
  /** Runs of this kind that may be recorded; all of them succeeded. */
  readonly runs: number;
  /** What the other side is to hold. `reserve`: a part of the servers, each at most once. `stopped`: nothing runs. */
  readonly other: "reserve" | "stopped" | "down";
  /** The other side is to be as it was: same ids, nothing more. */
  readonly otherAsBefore?: CloudDump;
  /** Tags that were acknowledged, by server. */
  readonly tagged?: { readonly server: string; readonly keys: readonly string[] };
}

type Server = CloudDump["tables"]["server"][number];

const nameOf = (row: { readonly name: string; readonly tags: Readonly<Record<string, string>> }): string =>
  row.name === "" ? (row.tags["Name"] ?? "") : row.name;

/** Root volumes come and go with their servers; the owner made none of them. */
const dataVolumes = (cloud: CloudDump): CloudDump["tables"]["volume"] =>
  cloud.tables.volume.filter(({ attachment }) => attachment === null || attachment.device === "/dev/sdf");
const isRunning = ({ state }: Server): boolean => state === "running" || state === "pending";
const exists = ({ state }: Server): boolean => state !== "terminated" && state !== "shutting-down";

/** Problems in words; none: the environment is whole. */
export async function checkWhole(
  clouds: TwoClouds,
  engine: EngineUnderTest,
  expected: Expected,
  ending: Ending,
): Promise<readonly string[]> {
  const otherSide: Side = ending.serving === "east" ? "west" : "east";
  const serving = await clouds.dump(ending.serving);
  const problems = [
    ...(await checkStanding(engine, ending, otherSide)),
    ...checkServing(serving, expected, ending),
    ...(await checkBelief(engine, serving)),
  ];
  if (ending.other === "down") return problems;
  const other = await clouds.dump(otherSide);
  return [...problems, ...checkOther(other, expected, ending), ...(await checkPairings(engine, other))];
}

async function checkStanding(engine: EngineUnderTest, ending: Ending, otherSide: Side): Promise<string[]> {
  const problems: string[] = [];
  const status = await engine.status();
  const is = [status.phase, status.activeSite, status.standbySite, status.servingSite].join(" ");
  const should = [ending.phase, ending.serving, otherSide, ending.serving].join(" ");
  if (is !== should) problems.push(`stands as ${is}, not as ${should}`);
  if (status.run !== null) problems.push("a run is under way");
  if (status.journal.open > 0) problems.push(`${status.journal.open} commands without an outcome`);
  if (status.behind.state > 0 || status.behind.standby > 0) problems.push("something is behind the journal");
  for (const route of status.routes) {
    if (route.site !== ending.serving || route.missing > 0)
      problems.push(`route ${route.route} leads to ${route.site ?? "nothing"}, ${route.missing} missing`);
  }
  const runs = (await engine.runs()).filter(({ kind }) => kind === ending.kind);
  if (runs.length !== ending.runs) problems.push(`${runs.length} runs of the kind ${ending.kind}`);
  for (const { state, error, steps } of runs) {
    if (state !== "succeeded") problems.push(`the ${ending.kind} ${state}: ${error ?? ""}`);
    const undone = steps.filter((step) => step.state !== "done").map(({ name }) => name);
    if (undone.length > 0) problems.push(`steps not done: ${undone.join(", ")}`);
  }
  return problems;
}

function checkServing(cloud: CloudDump, expected: Expected, ending: Ending): string[] {
  const problems: string[] = [];
  const { tables } = cloud;
  const once = (
    rows: readonly { readonly name: string; readonly tags: Readonly<Record<string, string>> }[],
    what: string,
    name: string,
  ): void => {
    const count = rows.filter((row) => nameOf(row) === name).length;
    if (count !== 1) problems.push(`${count} of ${what} ${name}`);
  };
  once(tables.network, "network", "shop");
  once(tables.subnet, "subnet", "shop");
  once(tables.keyPair, "key pair", "shop");
  for (const name of ["web", "db"]) {
    once(tables.group, "group", name);
    const group = tables.group.find((row) => nameOf(row) === name);
    const rules = tables.rule.filter((rule) => rule.groupId === group?.id && rule.direction === "ingress");
    if (rules.length !== 1) problems.push(`${rules.length} rules of group ${name}`);
  }
  const there = tables.server.filter(exists);
  for (const [name, server] of expected.servers) {
    const found = there.filter((row) => nameOf(row) === name);
    const [one] = found;
    if (found.length !== 1 || one === undefined) {
      problems.push(`${found.length} of server ${name} where it serves`);
      continue;
    }
    if (one.state !== "running") problems.push(`server ${name} is ${one.state}`);
    if (one.type !== server.type) problems.push(`server ${name} is a ${one.type}`);
    const tags = { ...server.tags };
    if (ending.tagged?.server === name) for (const key of ending.tagged.keys) tags[key] = "1";
    for (const [key, value] of Object.entries(tags)) {
      const have = key === "Name" ? nameOf(one) : one.tags[key];
      if (have !== value) problems.push(`tag ${key} of ${name} is ${have ?? "lost"}`);
    }
    const volumes = dataVolumes(cloud).filter(({ attachment }) => attachment?.serverId === one.id).length;
    if (volumes !== server.volumes) problems.push(`${volumes} volumes at ${name}`);
    const address = tables.address.some(({ association }) => association?.serverId === one.id);
    if (address !== server.address) problems.push(`address of ${name}: ${address}`);
  }
  const unexpected = there.filter((row) => !expected.servers.has(nameOf(row)));
  if (unexpected.length > 0) problems.push(`unexpected: ${unexpected.map(nameOf).join(", ")}`);
  const volumes = dataVolumes(cloud).length;
  if (volumes !== 1) problems.push(`${volumes} volumes where it serves`);
  if (tables.address.length !== 1) problems.push(`${tables.address.length} addresses where it serves`);
  return problems;
}

/** What the control plane believes to be the environment really is, and nothing runs that it does not know of. */
async function checkBelief(engine: EngineUnderTest, cloud: CloudDump): Promise<string[]> {
  const problems: string[] = [];
  const resources = await engine.resources();
  const { tables } = cloud;
  const idsOf = {
    server: new Set(tables.server.filter(exists).map(({ id }) => id)),
    volume: new Set(dataVolumes(cloud).map(({ id }) => id)),
    address: new Set(tables.address.map(({ id }) => id)),
    network: new Set(tables.network.filter(({ isDefault }) => !isDefault).map(({ id }) => id)),
    securityGroup: new Set(tables.group.filter(({ isDefault }) => !isDefault).map(({ id }) => id)),
  };
  for (const [kind, there] of Object.entries(idsOf)) {
    const believed = new Set(resources.filter((one) => one.kind === kind).map(({ id }) => id));
    const gone = [...believed].filter((id) => !there.has(id));
    const unknown = [...there].filter((id) => !believed.has(id));
    if (gone.length > 0) problems.push(`believed in but gone: ${kind} ${gone.join(", ")}`);
    if (unknown.length > 0) problems.push(`there but unknown: ${kind} ${unknown.join(", ")}`);
  }
  return problems;
}

function checkOther(cloud: CloudDump, expected: Expected, ending: Ending): string[] {
  const problems: string[] = [];
  const there = cloud.tables.server.filter(exists);
  for (const name of new Set(there.map(nameOf))) {
    const count = there.filter((row) => nameOf(row) === name).length;
    if (!expected.servers.has(name)) problems.push(`unexpected on the other side: ${name}`);
    if (count !== 1) problems.push(`${count} of server ${name} on the other side`);
  }
  const running = there.filter(isRunning).map(nameOf);
  if (ending.other === "stopped" && running.length > 0)
    problems.push(`still running on the other side: ${running.join(", ")}`);
  if (ending.other === "reserve") {
    const tiers = new Set(running.map((name) => name.split("-")[0]));
    if (running.length !== 2 || tiers.size !== 2 || there.length !== 2)
      problems.push(
        `the reserve is ${there.map((row) => `${nameOf(row)} ${row.state}`).join(", ") || "empty"}`,
      );
  }
  if (ending.otherAsBefore === undefined) return problems;
  const before = idsIn(ending.otherAsBefore);
  const now = idsIn(cloud);
  for (const id of now) if (!before.has(id)) problems.push(`left behind on the other side: ${id}`);
  for (const id of before) if (!now.has(id)) problems.push(`gone from the other side: ${id}`);
  return problems;
}

function idsIn({ tables }: CloudDump): Set<string> {
  const { server, network, subnet, group, rule, keyPair, volume, address } = tables;
  const rows = { server: server.filter(exists), network, subnet, group, rule, keyPair, volume, address };
  return new Set(Object.entries(rows).flatMap(([table, all]) => all.map(({ id }) => `${table} ${id}`)));
}

async function checkPairings(engine: EngineUnderTest, other: CloudDump): Promise<string[]> {
  const pairings = await engine.pairings();
  const servers = new Set(other.tables.server.filter(exists).map(({ id }) => id));
  const stray = pairings.filter(({ scope }) => scope !== "main").map(({ scope }) => scope);
  const unfinished = pairings.filter(({ scope, state }) => scope === "main" && state !== "paired");
  const paired = pairings.filter(({ scope, kind }) => scope === "main" && kind === "server");
  const gone = paired.filter(({ standbyId }) => standbyId === null || !servers.has(standbyId));
  const unknown = [...servers].filter((id) => !paired.some(({ standbyId }) => standbyId === id));
  return [
    ...[...new Set(stray)].map((scope) => `pairings of ${scope} are left`),
    ...unfinished.map(({ kind, activeId, state }) => `pairing of ${kind} ${activeId} is ${state}`),
    ...gone.map(
      ({ activeId, standbyId }) => `${activeId} is paired with ${standbyId ?? "nothing"}, which is gone`,
    ),
    ...unknown.map((id) => `server ${id} on the other side is paired with nothing`),
  ];
}

/** Fails with the problems that are left when it has been waited for. */
export async function untilWhole(
  clouds: TwoClouds,
  engine: EngineUnderTest,
  expected: Expected,
  ending: Ending,
  { what = "the environment to be whole", limitMs = 30_000 } = {},
): Promise<void> {
  await until(
    what,
    () => checkWhole(clouds, engine, expected, ending),
    (problems) => problems.length === 0,
    limitMs,
  );
}
