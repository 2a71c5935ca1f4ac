/** Which action waits for which, and which goes first. */
import { invariant } from "#kernel/invariant.ts";
import { resourceKey } from "#model/environment-state.ts";
import type { Resource, ResourceKind } from "#model/resource.ts";
import { referencesOf } from "#model/resource.ts";
import type { ConvergenceAction, DeleteAction, Dependency, UpdateAction } from "./convergence-plan.ts";
import { parseIpv4Prefix, prefixesOverlap } from "./ipv4-prefix.ts";
import type { Pairing, Pairings } from "./pairings.ts";
import { pairingKey } from "./pairings.ts";

interface ActionsOfKey {
  create?: ConvergenceAction;
  update?: UpdateAction;
  confirm?: ConvergenceAction;
  delete?: DeleteAction;
}

function byKey(actions: readonly ConvergenceAction[]): Map<string, ActionsOfKey> {
  const index = new Map<string, ActionsOfKey>();
  for (const action of actions) {
    const entry = index.get(action.key) ?? {};
    if (action.type === "delete") entry.delete = action;
    else if (action.type === "update") entry.update = action;
    else if (action.type !== "retag") entry[action.type] = action;
    index.set(action.key, entry);
  }
  return index;
}

/** Kinds whose ends must work, not only exist, before they can be made. */
function needsReadyEnds(kind: ResourceKind): boolean {
  return kind === "volumeAttachment" || kind === "addressAssociation";
}

function after(
  action: ConvergenceAction,
  first: ConvergenceAction | undefined,
  until: Dependency["until"] = "done",
) {
  if (first === undefined || first === action) return;
  action.waitsFor.push({ on: first.index, until });
}

/** Keys of what a counterpart refers to, on either side's account. */
function referencedKeys(pairing: Pairing, keyOfStandbyId: ReadonlyMap<string, string>): Set<string> {
  const { kind, activeId, applied, counterpart } = pairing;
  const source = referencesOf({ kind, id: activeId, ...applied } as Resource);
  const keys = new Set(source.map((end) => resourceKey(end.kind, end.id)));
  if (counterpart === null) return keys;
  for (const end of referencesOf({ kind, id: activeId, ...counterpart } as Resource)) {
    const key = keyOfStandbyId.get(resourceKey(end.kind, end.id));
    if (key !== undefined) keys.add(key);
  }
  return keys;
}

/** Fills in `waitsFor` and `priority`; answers with the figures of the whole. */
export function orderActions(
  actions: readonly ConvergenceAction[],
  pairings: Pairings,
): { readonly calls: number; readonly depth: number } {
  const index = byKey(actions);
  for (const action of actions) {
    if (action.type === "create") orderCreate(action, index);
    if (action.type === "update") {
      if (action.fields.includes("groupIds"))
        orderOnReferences(action, action.target.spec, index, "securityGroup");
      const own = index.get(action.key);
      after(action, own?.confirm ?? own?.create, "ready");
    }
    if (action.type === "retag") after(action, index.get(action.key)?.create);
  }
  orderDeletes(index, pairings);
  orderClaims(actions, pairings);
  return rank(actions);
}

function orderCreate(
  action: ConvergenceAction & { readonly type: "create" },
  index: ReadonlyMap<string, ActionsOfKey>,
): void {
  const gone = index.get(action.key)?.delete;
  // An interrupted creation that nobody wants is looked up first and deleted after.
  if (gone !== undefined && action.resume !== null) after(gone, action);
  else after(action, gone);
  orderOnReferences(action, action.target.spec, index);
}

function orderOnReferences(
  action: ConvergenceAction,
  spec: Resource["spec"],
  index: ReadonlyMap<string, ActionsOfKey>,
  only?: ResourceKind,
): void {
  const until = needsReadyEnds(action.kind) ? "ready" : "done";
  for (const end of referencesOf({ kind: action.kind, id: action.activeId, spec } as Resource)) {
    const of = index.get(resourceKey(end.kind, end.id));
    if (of === undefined || (only !== undefined && end.kind !== only)) continue;
    after(action, of.create ?? (until === "ready" ? of.confirm : undefined), until);
  }
}

/** What a link ends with. */
function hostKey(pairing: Pairing): string | undefined {
  const spec = pairing.applied.spec;
  if ("serverId" in spec) return resourceKey("server", spec.serverId);
  return "groupId" in spec ? resourceKey("securityGroup", spec.groupId) : undefined;
}

/** What refers to a resource goes, or lets go of it, before the resource goes. */
function orderDeletes(index: ReadonlyMap<string, ActionsOfKey>, pairings: Pairings): void {
  const keyOfStandbyId = new Map<string, string>();
  for (const pairing of pairings.values()) {
    if (pairing.standbyId === null) continue;
    keyOfStandbyId.set(resourceKey(pairing.kind, pairing.standbyId), pairingKey(pairing));
  }
  for (const pairing of pairings.values()) {
    const own = index.get(pairingKey(pairing));
    for (const endKey of referencedKeys(pairing, keyOfStandbyId)) {
      const end = index.get(endKey)?.delete;
      if (end === undefined) continue;
      // What ends with another goes after that one, and before its own other end.
      if (own?.delete?.implied === true && endKey === hostKey(pairing)) after(own.delete, end);
      else if (own?.delete !== undefined) after(end, own.delete);
      else if (end.kind === "securityGroup" && own?.update?.fields.includes("groupIds") === true) {
        // A server can let go of a group; every other reference is for life.
        after(end, own.update);
      }
    }
  }
  for (const { delete: gone } of index.values()) {
    if (gone?.implied === true) invariant(gone.waitsFor.length > 0, "an implied delete follows another");
  }
}

/** What only one resource can have at a time: a delete that frees it comes before the create that takes it. */
function claimsOf(kind: ResourceKind, spec: Resource["spec"]): string[] {
  const resource = { kind, spec } as Resource;
  switch (resource.kind) {
    case "keyPair":
      return [`key|${resource.spec.name}`];
    case "securityGroup":
      return [`group|${resource.spec.networkId ?? ""}|${resource.spec.name}`];
    case "subnet":
      return [`subnet|${resource.spec.networkId}`];
    case "volumeAttachment":
      return [`volume|${resource.spec.volumeId}`, `device|${resource.spec.serverId}|${resource.spec.device}`];
    case "addressAssociation":
      return [`address|${resource.spec.addressId}`, `public|${resource.spec.serverId}`];
    case "server":
      return resource.spec.privateIp === undefined
        ? []
        : [`private|${resource.spec.subnetId ?? ""}|${resource.spec.privateIp}`];
    case "network":
    case "securityGroupRule":
    case "volume":
    case "address":
      return [];
  }
}

function clash(kind: ResourceKind, a: Resource["spec"], b: Resource["spec"]): boolean {
  if (kind !== "subnet" || !("cidr" in a) || !("cidr" in b)) return true;
  const [first, second] = [parseIpv4Prefix(a.cidr ?? ""), parseIpv4Prefix(b.cidr ?? "")];
  return first === undefined || second === undefined || prefixesOverlap(first, second);
}

function orderClaims(actions: readonly ConvergenceAction[], pairings: Pairings): void {
  const freed = new Map<string, { readonly action: DeleteAction; readonly spec: Resource["spec"] }[]>();
  for (const action of actions) {
    if (action.type !== "delete") continue;
    const spec = pairings.get(action.key)?.applied.spec;
    if (spec === undefined) continue;
    for (const claim of claimsOf(action.kind, spec)) {
      const holders = freed.get(claim) ?? [];
      holders.push({ action, spec });
      freed.set(claim, holders);
    }
  }
  if (freed.size === 0) return;
  for (const action of actions) {
    if (action.type !== "create") continue;
    for (const claim of claimsOf(action.kind, action.source.spec)) {
      for (const holder of freed.get(claim) ?? []) {
        if (holder.action.key === action.key || !clash(action.kind, holder.spec, action.source.spec))
          continue;
        if (!leadsTo(actions, holder.action, action)) after(action, holder.action);
      }
    }
  }
}

/** Whether `from` waits, through any number of others, for `to`. A claim that would close a circle is not waited for. */
function leadsTo(
  actions: readonly ConvergenceAction[],
  from: ConvergenceAction,
  to: ConvergenceAction,
): boolean {
  const open = [from];
  const seen = new Set<number>();
  for (let action = open.pop(); action !== undefined; action = open.pop()) {
    if (action === to) return true;
    for (const { on } of action.waitsFor) {
      const next = actions[on];
      if (next === undefined || seen.has(on)) continue;
      seen.add(on);
      open.push(next);
    }
  }
  return false;
}

/** Among equals, what takes the target longest goes first, and deletes go last. */
const kindOrder: Readonly<Record<ResourceKind, number>> = {
  network: 12,
  subnet: 11,
  securityGroup: 10,
  keyPair: 9,
  server: 8,
  volume: 7,
  address: 6,
  securityGroupRule: 5,
  volumeAttachment: 4,
  addressAssociation: 3,
};

/** The wait for a server's readiness, in calls. */
const readyWeight = 20;

function rank(actions: readonly ConvergenceAction[]): { readonly calls: number; readonly depth: number } {
  const order = topological(actions);
  const height = new Map<number, number>();
  const depth = new Map<number, number>();
  let calls = 0;
  let deepest = 0;
  for (const action of order) {
    const own = action.type === "confirm" || (action.type === "delete" && action.implied) ? 0 : 1;
    calls += own;
    const level = own + Math.max(0, ...action.waitsFor.map(({ on }) => depth.get(on) ?? 0));
    depth.set(action.index, level);
    deepest = Math.max(deepest, level);
  }
  for (const action of order.toReversed()) {
    const own = (height.get(action.index) ?? 0) + 1;
    action.priority = own * 16 + (action.type === "delete" ? 0 : kindOrder[action.kind]);
    for (const { on, until } of action.waitsFor) {
      const way = own + (until === "ready" ? readyWeight : 0);
      if (way > (height.get(on) ?? 0)) height.set(on, way);
    }
  }
  return { calls, depth: deepest };
}

function topological(actions: readonly ConvergenceAction[]): ConvergenceAction[] {
  const dependants = new Map<number, number[]>();
  const waiting = new Map<number, number>();
  for (const action of actions) {
    waiting.set(action.index, action.waitsFor.length);
    for (const { on } of action.waitsFor) {
      const list = dependants.get(on);
      if (list === undefined) dependants.set(on, [action.index]);
      else list.push(action.index);
    }
  }
  const order = actions.filter(({ waitsFor }) => waitsFor.length === 0);
  for (let at = 0; at < order.length; at += 1) {
    for (const index of dependants.get(order[at]?.index ?? -1) ?? []) {
      const left = (waiting.get(index) ?? 0) - 1;
      waiting.set(index, left);
      const next = actions[index];
      if (left === 0 && next !== undefined) order.push(next);
    }
  }
  invariant(order.length === actions.length, "a plan has no circle");
  return order;
}
