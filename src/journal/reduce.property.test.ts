import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { resourceId } from "#kernel/ids.ts";
import type { Change } from "#model/change.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import type { Resource, ResourceKind } from "#model/resource.ts";
import { referencesOf } from "#model/resource.ts";
import { isLink } from "./links.ts";
import type { Step } from "./plausible-history.ts";
import { PlausibleHistory } from "./plausible-history.ts";
import type { PositionedChange } from "./reduce.ts";
import { reduceChanges } from "./reduce.ts";

const number = fc.nat({ max: 59 });
const steps = fc.array(fc.tuple(number, number, number, number), { maxLength: 200, size: "max" });
const cut = fc.double({ min: 0, max: 1, noNaN: true });

function historyOf(given: readonly Step[]): PositionedChange[] {
  const history = new PlausibleHistory();
  return given
    .map((step) => history.next(step))
    .filter((changes) => changes.length > 0)
    .flatMap((changes, index) => changes.map((change) => ({ position: index + 1, change })));
}

function stateAfter(changes: readonly Change[]): EnvironmentState {
  const state = new EnvironmentState();
  for (const change of changes) assert.equal(state.apply(change), "applied", "the history is plausible");
  return state;
}

function content(state: EnvironmentState): Map<string, Resource> {
  return new Map(
    [...state.resources()]
      .map((resource) => [`${resource.kind}:${resource.id}`, resource] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

const split = (history: PositionedChange[], at: number): [Change[], PositionedChange[]] => {
  const index = Math.round(at * history.length);
  return [history.slice(0, index).map(({ change }) => change), history.slice(index)];
};

const changesOf = (queue: readonly { change: Change }[]): Change[] => queue.map(({ change }) => change);
const numbered = (changes: Change[]): PositionedChange[] =>
  changes.map((change, index) => ({ position: index + 1, change }));

test("draining the reduced queue gives the state that draining all of it gives", () => {
  fc.assert(
    fc.property(steps, cut, (given, at) => {
      const history = historyOf(given);
      const [prefix, rest] = split(history, at);
      const whole = content(stateAfter(changesOf(history)));
      const state = stateAfter(prefix);
      for (const change of changesOf(reduceChanges(rest, stateAfter(prefix)).changes)) state.apply(change);
      assert.deepEqual(content(state), whole);
    }),
    { numRuns: 3_000 },
  );
});

test("and without the state before it, where each resource goes by one name", () => {
  fc.assert(
    fc.property(steps, cut, (given, at) => {
      const history = historyOf(given);
      const [prefix, rest] = split(history, at);
      const before = stateAfter(prefix);
      const own = rest.map(({ position, change }): PositionedChange => {
        if (change.type === "create") return { position, change };
        const id = before.get(change.kind, change.id)?.id ?? change.id;
        return { position, change: { ...change, id } };
      });
      const whole = content(stateAfter(changesOf(history)));
      for (const change of changesOf(reduceChanges(own).changes)) before.apply(change);
      assert.deepEqual(content(before), whole);
    }),
    { numRuns: 1_000 },
  );
});

/** Key pairs may go while servers that were made with them stay: so it is in the clouds too. */
const weak: ReadonlySet<ResourceKind> = new Set(["keyPair"]);

function assertApplicable(state: EnvironmentState, change: Change, history: string): void {
  if (change.type === "create") {
    assert.ok(!state.has(change.kind, change.id), `${change.id} is there already${history}`);
    for (const end of referencesOf(change)) {
      assert.ok(state.has(end.kind, end.id), `${change.id} refers to absent ${end.id}${history}`);
    }
  }
  assert.equal(state.apply(change), "applied", `${change.type} of absent ${change.id}${history}`);
  if (change.type === "update") {
    const updated = state.get(change.kind, change.id);
    for (const end of updated === undefined ? [] : referencesOf(updated)) {
      const there = weak.has(end.kind) || state.has(end.kind, end.id);
      assert.ok(there, `${change.id} now refers to absent ${end.id}${history}`);
    }
  }
  if (change.type !== "delete" || weak.has(change.kind)) return;
  for (const left of state.resources()) {
    const held = referencesOf(left).some((end) => end.kind === change.kind && end.id === change.id);
    assert.ok(!held || isLink(left.kind), `${change.id} went while ${left.id} refers to it${history}`);
  }
}

test("each net change can be applied in its turn", () => {
  fc.assert(
    fc.property(steps, cut, (given, at) => {
      const [prefix, rest] = split(historyOf(given), at);
      const state = stateAfter(prefix);
      const reduced = changesOf(reduceChanges(rest, stateAfter(prefix)).changes);
      for (const change of reduced) assertApplicable(state, change, "");
    }),
    { numRuns: 3_000 },
  );
});

test("what let go of a resource before it went, and was deleted itself, is deleted first", () => {
  const group = (id: string): Change => ({
    type: "create",
    kind: "securityGroup",
    id: resourceId(id),
    spec: { name: id, description: id },
    tags: {},
  });
  const server: Change = {
    type: "create",
    kind: "server",
    id: resourceId("i-1"),
    spec: {
      imageId: "ami",
      type: "t",
      groupIds: [resourceId("sg-1")],
      publicAddress: false,
      power: "running",
      blockDevices: [],
    },
    tags: {},
  };
  const state = stateAfter([group("sg-1"), server]);
  const queue: Change[] = [
    group("sg-2"),
    { type: "update", kind: "server", id: server.id, set: { groupIds: [resourceId("sg-2")] } },
    { type: "delete", kind: "securityGroup", id: resourceId("sg-1") },
    { type: "delete", kind: "server", id: server.id },
  ];
  const order = (changes: readonly Change[]): string[] =>
    changesOf(reduceChanges(numbered([...changes]), state).changes).map(({ type, id }) => `${type} ${id}`);
  assert.deepEqual(order(queue), ["create sg-2", "delete i-1", "delete sg-1"]);
  // What went with the server otherwise was taken from it before.
  const volume: Change = {
    type: "create",
    kind: "volume",
    id: resourceId("vol-1"),
    spec: { sizeGiB: 1 },
    tags: {},
  };
  const attachment: Change = {
    type: "create",
    kind: "volumeAttachment",
    id: resourceId("vol-1@i-1"),
    spec: { volumeId: volume.id, serverId: server.id, device: "/dev/sdf", deleteOnTermination: true },
    tags: {},
  };
  for (const change of [volume, attachment]) state.apply(change);
  const detach: Change = { type: "delete", kind: "volumeAttachment", id: attachment.id };
  assert.deepEqual(order([...queue.slice(0, 3), detach, ...queue.slice(3)]), [
    "create sg-2",
    "delete vol-1@i-1",
    "delete i-1",
    "delete sg-1",
  ]);
});

test("an association that moves and ends with its ends leaves no delete behind", () => {
  const address = resourceId("eip-1");
  const id = resourceId("assoc-1");
  const association = (serverId: string): Change => ({
    type: "create",
    kind: "addressAssociation",
    id,
    spec: { addressId: address, serverId: resourceId(serverId) },
    tags: {},
  });
  const state = new EnvironmentState();
  state.put({ kind: "address", id: address, spec: {}, tags: {} });
  state.apply(association("i-2"));
  const queue: Change[] = [
    { type: "delete", kind: "server", id: resourceId("i-2") },
    association("i-3"),
    { type: "delete", kind: "address", id: address },
  ];
  const kinds = changesOf(reduceChanges(numbered(queue), state).changes).map(({ kind }) => kind);
  assert.deepEqual(kinds, ["server", "address"]);
});

test("never longer than the queue, and reducing again changes nothing", () => {
  fc.assert(
    fc.property(steps, cut, (given, at) => {
      const [prefix, rest] = split(historyOf(given), at);
      const before = stateAfter(prefix);
      const once = reduceChanges(rest, before);
      assert.ok(once.changes.length <= rest.length);
      const twice = reduceChanges(numbered(changesOf(once.changes)), before);
      assert.deepEqual(changesOf(twice.changes), changesOf(once.changes));
    }),
    { numRuns: 2_000 },
  );
});

test("each net change says which commands it stands for", () => {
  fc.assert(
    fc.property(steps, (given) => {
      const history = historyOf(given);
      const reduced = reduceChanges(history);
      assert.equal(reduced.changesRead, history.length);
      assert.equal(reduced.through, history.at(-1)?.position ?? 0);
      for (const { from } of reduced.changes) {
        assert.ok(from.count >= 1 && from.count <= from.last - from.first + 1);
        assert.ok(from.first >= 1 && from.last <= reduced.through);
      }
    }),
    { numRuns: 300 },
  );
});
