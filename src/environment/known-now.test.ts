import assert from "node:assert/strict";
import { test } from "node:test";
import type { PositionedChanges } from "#journal/contract.ts";
import { environmentId, resourceId } from "#kernel/ids.ts";
import type { Change } from "#model/change.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import type { Resource } from "#model/resource.ts";
import { KnownNow } from "./known-now.ts";

const network = (id: string, tags = {}): Resource => ({
  kind: "network",
  id: resourceId(id),
  spec: { cidr: "10.0.0.0/16", internet: false },
  tags,
});
const tag = (id: string, set: Record<string, string>, ...remove: readonly string[]): Change => ({
  type: "tag",
  kind: "network",
  id: resourceId(id),
  set,
  remove,
});

interface Stage {
  readonly known: KnownNow;
  readonly follower: { state: EnvironmentState; position: number };
  readonly listeners: number;
  readonly record: (...changes: readonly Change[]) => number;
}

function stage(...folded: readonly Resource[]): Stage {
  const follower = { state: EnvironmentState.of(folded), position: 0 };
  const listeners = new Set<(outcome: PositionedChanges) => void>();
  let position = 0;
  const journal = {
    onOutcome: (_environment: unknown, listener: (outcome: PositionedChanges) => void) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
  return {
    follower,
    known: new KnownNow(journal, environmentId("shop"), follower),
    get listeners() {
      return listeners.size;
    },
    record(...changes) {
      position += 1;
      for (const listener of listeners) listener({ position, changes });
      return position;
    },
  };
}

test("what was answered and not folded yet is known", () => {
  const { known, record } = stage(network("a", { old: "1" }));
  assert.deepEqual(known.get("network", "a")?.tags, { old: "1" });
  record(tag("a", { tier: "web" }));
  record(tag("a", {}, "old"), { type: "create", ...network("b"), aliases: [resourceId("bee")] });
  assert.deepEqual(known.get("network", "a")?.tags, { tier: "web" });
  assert.equal(known.get("network", "bee")?.id, "b");
  record({ type: "delete", kind: "network", id: resourceId("a") });
  assert.equal(known.get("network", "a"), undefined);
  assert.equal(known.get("subnet", "b"), undefined);
});

test("what was folded counts once, and half folded ends the same", () => {
  const { known, record, follower } = stage(network("a"));
  const first = record(tag("a", { n: "1" }));
  record(tag("a", { n: "2" }));
  follower.state.apply(tag("a", { n: "1" }));
  follower.state.apply(tag("a", { n: "2" }));
  assert.deepEqual(known.get("network", "a")?.tags, { n: "2" }, "folded, and not durable yet");
  follower.position = first;
  assert.deepEqual(known.get("network", "a")?.tags, { n: "2" });
  follower.position = record(tag("a", {}, "n"));
  follower.state.apply(tag("a", {}, "n"));
  assert.deepEqual(known.get("network", "a")?.tags, {});
  follower.state.apply(tag("a", { told: "by the cloud" }));
  assert.deepEqual(known.get("network", "a")?.tags, { told: "by the cloud" });
});

test("a name that the record has for a resource finds it, changed and gone", () => {
  const { known, record, follower } = stage();
  follower.state.put(network("a"), [resourceId("alias")]);
  record(tag("a", { n: "1" }));
  assert.deepEqual(known.get("network", "alias")?.tags, { n: "1" });
  record({ type: "delete", kind: "network", id: resourceId("a") });
  assert.equal(known.get("network", "alias"), undefined);
});

test("it listens until it is disposed of", () => {
  const made = stage();
  assert.equal(made.listeners, 1);
  made.known[Symbol.dispose]();
  assert.equal(made.listeners, 0);
});
