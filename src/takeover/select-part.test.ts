import assert from "node:assert/strict";
import { test } from "node:test";
import { resourceId } from "#kernel/ids.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import type { Resource } from "#model/resource.ts";
import { selectServers, selectVolumes, type Whole } from "#takeover/select-part.ts";

const id = resourceId;

function whole(): Whole {
  const state = new EnvironmentState();
  const server = (name: string, label: string): Resource => ({
    kind: "server",
    id: id(name),
    spec: {
      imageId: "img",
      type: "small",
      groupIds: [],
      publicAddress: false,
      power: "running",
      blockDevices: [],
    },
    tags: { Name: label },
  });
  const all: readonly Resource[] = [
    server("i-1", "db"),
    server("i-2", "web"),
    server("i-3", "web"),
    ...["vol-1", "vol-2", "vol-3"].map((name): Resource => ({
      kind: "volume",
      id: id(name),
      spec: { sizeGiB: 1 },
      tags: {},
    })),
    ...[
      ["vol-1", "i-1"],
      ["vol-2", "i-1"],
    ].map(([volume = "", of = ""]): Resource => ({
      kind: "volumeAttachment",
      id: id(`${volume}@${of}`),
      spec: { volumeId: id(volume), serverId: id(of), device: "/dev/sdf", deleteOnTermination: false },
      tags: {},
    })),
  ];
  for (const one of all) state.put(one);
  return { environment: "shop", state, kept: new Set([id("vol-1"), id("vol-3")]) };
}

test("volumes: those named, those of the servers that are, each once; all when nothing is named", () => {
  assert.deepEqual(selectVolumes(whole(), {}), ["vol-1", "vol-3"]);
  assert.deepEqual(selectVolumes(whole(), { servers: ["db"] }), ["vol-1"]);
  assert.deepEqual(selectVolumes(whole(), { servers: ["i-1"], volumes: ["vol-3", "vol-1"] }), [
    "vol-3",
    "vol-1",
  ]);
});

test("servers: by id or name, or with a volume that is named; undefined when nothing is", () => {
  assert.equal(selectServers(whole(), {}), undefined);
  assert.deepEqual(selectServers(whole(), { servers: ["i-2"], volumes: ["vol-1"] }), ["i-2", "i-1"]);
  assert.deepEqual(selectServers(whole(), { servers: ["db", "i-1"] }), ["i-1"]);
});

test("what is not there, has nothing kept, or could be several is refused by name", () => {
  for (const [part, code, said] of [
    [{ volumes: ["vol-2"] }, "not_found", /"vol-2" is no volume .*: vol-1, vol-3/u],
    [{ servers: ["i-9"] }, "not_found", /no server "i-9"/u],
    [{ servers: ["i-2"] }, "not_found", /no volume whose content is kept/u],
    [{ servers: ["web"] }, "input.invalid", /i-2, i-3/u],
  ] as const) {
    assert.throws(() => selectVolumes(whole(), part), { code, message: said });
  }
  assert.throws(() => selectServers(whole(), { volumes: ["vol-3"] }), { message: /no server .*"vol-3"/u });
  assert.throws(() => selectServers(whole(), { servers: ["web"] }), { code: "input.invalid" });
});
