import assert from "node:assert/strict";
import { test } from "node:test";
import { resourceId } from "#kernel/ids.ts";
import type { Change } from "#model/change.ts";
import type { SecurityGroupRuleSpec, ServerSpec } from "#model/resource.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import { securityGroupRuleId, volumeAttachmentId } from "#model/resource.ts";
import type { ReducedQueue } from "./reduce.ts";
import { reduceChanges } from "./reduce.ts";

const spec: ServerSpec = {
  imageId: "ami",
  type: "small",
  groupIds: [],
  publicAddress: false,
  power: "running",
  blockDevices: [],
};

const server = (id: string): Change => ({
  type: "create",
  kind: "server",
  id: resourceId(id),
  spec,
  tags: { Name: id },
});
const volume = (id: string): Change => ({
  type: "create",
  kind: "volume",
  id: resourceId(id),
  spec: { sizeGiB: 1 },
  tags: {},
});
const attach = (volumeId: string, serverId: string, deleteOnTermination: boolean): Change => ({
  type: "create",
  kind: "volumeAttachment",
  id: volumeAttachmentId(volumeId, serverId),
  spec: {
    volumeId: resourceId(volumeId),
    serverId: resourceId(serverId),
    device: "/dev/sdf",
    deleteOnTermination,
  },
  tags: {},
});
const gone = (kind: "server" | "volume" | "volumeAttachment" | "securityGroupRule", id: string): Change => ({
  type: "delete",
  kind,
  id: resourceId(id),
});
const resize = (id: string, type: string): Change => ({
  type: "update",
  kind: "server",
  id: resourceId(id),
  set: { type },
});

function reduced(changes: readonly Change[], before?: EnvironmentState): ReducedQueue {
  return reduceChanges(
    changes.map((change, index) => ({ position: index + 1, change })),
    before,
  );
}

const list = (changes: readonly Change[], before?: EnvironmentState): Change[] =>
  reduced(changes, before).changes.map(({ change }) => change);

test("what was created and deleted again vanishes, with all that was done to it", () => {
  const queue = reduced([
    server("i-1"),
    volume("v-1"),
    attach("v-1", "i-1", true),
    resize("i-1", "large"),
    gone("server", "i-1"),
  ]);
  assert.deepEqual(queue, { changes: [], changesRead: 5, commandsRead: 5, through: 5 });
});

test("a creation and its updates and tags are one creation, and it says for which commands it stands", () => {
  const tag: Change = {
    type: "tag",
    kind: "server",
    id: resourceId("i-1"),
    set: { tier: "web" },
    remove: ["Name"],
  };
  const queue = reduced([server("i-1"), volume("v-1"), resize("i-1", "large"), tag, resize("i-1", "huge")]);
  assert.deepEqual(queue.changes[0], {
    change: {
      type: "create",
      kind: "server",
      id: "i-1",
      spec: { ...spec, type: "huge" },
      tags: { tier: "web" },
    },
    from: { count: 4, first: 1, last: 5 },
  });
  assert.equal(queue.changes.length, 2);
});

test("ten thousand commands on a few resources become a few calls", () => {
  const changes = Array.from({ length: 10_000 }, (_, n) => resize(`i-${n % 61}`, `t${n}`));
  const queue = reduced(changes);
  assert.equal(queue.changes.length, 61);
  assert.equal(queue.commandsRead, 10_000);
});

test("attach and detach cancel out; a detach of what was attached before does not", () => {
  assert.deepEqual(list([attach("v-1", "i-1", false), gone("volumeAttachment", "v-1@i-1")]), []);
  const again = [gone("volumeAttachment", "v-1@i-1"), attach("v-1", "i-1", true)];
  assert.deepEqual(list(again), again);
});

test("a volume that goes with its server is deleted by name when its attachment was never drained", () => {
  assert.deepEqual(list([attach("v-1", "i-1", true), gone("server", "i-1")]), [
    gone("server", "i-1"),
    gone("volume", "v-1"),
  ]);
  const kept = [gone("volumeAttachment", "v-1@i-1"), gone("server", "i-1")];
  assert.deepEqual(list(kept), kept);
});

test("a rule revoked under its alias and authorised again is the same rule", () => {
  const rule: SecurityGroupRuleSpec = {
    groupId: resourceId("sg-1"),
    direction: "ingress",
    protocol: "tcp",
    fromPort: 80,
    toPort: 80,
    peer: { cidr: "0.0.0.0/0" },
  };
  const id = securityGroupRuleId(rule);
  const authorise = (alias: string): Change => ({
    type: "create",
    kind: "securityGroupRule",
    id,
    aliases: [resourceId(alias)],
    spec: rule,
    tags: {},
  });
  const before = new EnvironmentState();
  before.apply(authorise("sgr-1"));
  assert.deepEqual(list([gone("securityGroupRule", "sgr-1"), authorise("sgr-2")], before), [
    gone("securityGroupRule", id),
    authorise("sgr-2"),
  ]);
  const inQueue = [authorise("sgr-1"), gone("securityGroupRule", "sgr-1"), authorise("sgr-2")];
  assert.deepEqual(list(inQueue), [authorise("sgr-2")]);
});

test("a key pair that was deleted after its use is made, used and deleted", () => {
  const pair: Change = {
    type: "create",
    kind: "keyPair",
    id: resourceId("ci"),
    spec: { name: "ci", publicKey: "ssh-ed25519 A" },
    tags: {},
  };
  const drop: Change = { type: "delete", kind: "keyPair", id: resourceId("ci") };
  const use: Change = {
    type: "create",
    kind: "server",
    id: resourceId("i-1"),
    spec: { ...spec, keyName: "ci" },
    tags: {},
  };
  assert.deepEqual(list([pair, use, drop]), [pair, use, drop]);
  assert.deepEqual(list([pair, use, drop, gone("server", "i-1")]), []);
});

test("a server that moved to a new group does so before its old group goes", () => {
  const group = (id: string): Change => ({
    type: "create",
    kind: "securityGroup",
    id: resourceId(id),
    spec: { name: id, description: "" },
    tags: {},
  });
  const move = (to: string): Change => ({
    type: "update",
    kind: "server",
    id: resourceId("i-1"),
    set: { groupIds: [resourceId(to)] },
  });
  const dropOld: Change = { type: "delete", kind: "securityGroup", id: resourceId("sg-old") };
  assert.deepEqual(list([group("sg-a"), move("sg-a"), dropOld, group("sg-b"), move("sg-b")]), [
    group("sg-a"),
    group("sg-b"),
    move("sg-b"),
    dropOld,
  ]);
});

test("a server that was made with a key pair that is replaced is made before the replacement", () => {
  const name = resourceId("deploy");
  const pair = (publicKey: string): Change => ({
    type: "create",
    kind: "keyPair",
    id: name,
    spec: { name, publicKey },
    tags: {},
  });
  const made = (id: string): Change => ({
    type: "create",
    kind: "server",
    id: resourceId(id),
    spec: { ...spec, keyName: name },
    tags: {},
  });
  const before = new EnvironmentState();
  before.apply(pair("ssh old"));
  const queue = [
    made("i-1"),
    made("i-2"),
    { type: "delete", kind: "keyPair", id: name } as const,
    pair("ssh new"),
    made("i-3"),
  ];
  const once = reduced(queue, before).changes.map(({ change }) => change);
  assert.deepEqual(once, queue);
});
