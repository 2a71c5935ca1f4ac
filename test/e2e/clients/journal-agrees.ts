/** What the gateway recorded, against what a script was told, and against the cloud behind it. */
import assert from "node:assert/strict";
import { collect } from "#cloud/contract.ts";
import type { JournalEntry } from "#model/command.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import { type ResourceKind, resourceKinds } from "#model/resource.ts";
import { isReadOnly } from "#wire/aws/operation-effect.ts";
import type { Line } from "./transcript.ts";
import type { TwoWays } from "./two-ways.ts";

/** One entry for each change that was asked for, in that order, with the result that the client was told; none for reads. */
export function assertRecorded(lines: readonly Line[], entries: readonly JournalEntry[]): void {
  const told = lines.flatMap(({ operation, input, service: shortName, answered }) => {
    const service = shortName === "elbv2" ? "elasticloadbalancing" : shortName;
    const asks = operation.startsWith("wait ") || isReadOnly(service, operation);
    if (asks || ("DryRun" in input && input.DryRun === true)) return [];
    return [
      {
        service,
        operation,
        result: answered.code === null ? "applied" : "refused",
        errorCode: answered.code,
      },
    ];
  });
  const recorded = entries.map(({ intent, outcome }) => ({
    service: intent.service,
    operation: intent.operation,
    result: outcome?.result,
    errorCode: outcome?.errorCode,
  }));
  assert.deepEqual(recorded, told);
  for (const { outcome } of entries) {
    if (outcome?.result === "refused")
      assert.deepEqual(outcome.changes, [], "what is refused changes nothing");
  }
}

/**
 * Fields that a command does not tell, or a listing does not show. A launch address is not shown while a server is
 * stopped or has an Elastic IP instead.
 */
const unseen: Partial<Record<ResourceKind, readonly string[]>> = {
  server: ["userData", "privateIp", "zone", "publicAddress"],
  keyPair: ["publicKey"],
  addressAssociation: ["privateIp"],
};

type Shown = { kind: ResourceKind; id: string; spec: object; tags: object };

function comparable({ kind, id, spec, tags }: Shown): Shown {
  const left = Object.entries(spec).filter(
    ([field, value]) => !unseen[kind]?.includes(field) && value !== false,
  );
  return { kind, id, spec: Object.fromEntries(left), tags };
}

const byKey = (a: Shown, b: Shown): number => (`${a.kind} ${a.id}` < `${b.kind} ${b.id}` ? -1 : 1);

/** The fold of all that was recorded is what the cloud shows, of all that commands made; answers the kinds that there are. */
export async function assertFoldIsCloud(
  ways: TwoWays,
  entries: readonly JournalEntry[],
  signal: AbortSignal,
  /** Changes that say what has been said before: of what is gone, that it goes. */
  repeated = false,
): Promise<ReadonlySet<ResourceKind>> {
  const state = new EnvironmentState();
  const unknown: unknown[] = [];
  const inOrder = entries.toSorted((a, b) => (a.position ?? 0) - (b.position ?? 0));
  for (const { outcome } of inOrder) {
    for (const change of outcome?.changes ?? [])
      if (state.apply(change) === "unknown" && !(repeated && change.type === "delete")) unknown.push(change);
  }
  assert.deepEqual(unknown, []);
  const cloud = ways.openCloudBehind();
  const shown: Shown[] = [];
  try {
    for (const kind of resourceKinds) {
      for (const { resource } of await collect(cloud.list(kind, {}, signal)))
        shown.push(comparable(resource));
    }
  } finally {
    await cloud.close();
  }
  const told = [...state.resources()].map((resource) => comparable(resource)).toSorted(byKey);
  const made = new Set(told.map(({ kind, id }) => `${kind} ${id}`));
  // Every account has a default network, and every network a default group: no command made them.
  const given: ReadonlySet<ResourceKind> = new Set([
    "network",
    "subnet",
    "securityGroup",
    "securityGroupRule",
  ]);
  const ours = shown.filter(
    ({ kind, id }) =>
      made.has(`${kind} ${id}`) ||
      !given.has(kind) ||
      (kind === "securityGroupRule" && made.has(`securityGroup ${id.split("/", 1)[0] ?? ""}`)),
  );
  assert.deepEqual(told, ours.toSorted(byKey));
  return new Set(told.map(({ kind }) => kind));
}
