import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decodeMachineSpec, type DiskSpecInput, type MachineSpecInput } from "./machine-spec.ts";
import { type DiskPlan, HOT_PLUG_PORTS, planCommandLine } from "./plan-command-line.ts";

const kernel = { kind: "kernel", kernelPath: "/k", initrdPath: "/i" } as const;
const content: fc.Arbitrary<DiskSpecInput["content"]> = fc.oneof(
  fc.constant({ kind: "blank", sizeBytes: 1024 } as const),
  fc.constant({ kind: "existing", path: "/x.raw", format: "raw" } as const),
  fc.constant({ kind: "overlay", path: "/base.qcow2", format: "qcow2" } as const),
  fc.constant({
    kind: "live",
    sizeBytes: 1024,
    source: { kind: "unix", path: "/s", export: "e" },
  } as const),
);
const disks = fc
  .array(content, { maxLength: 20 })
  .map((contents) => contents.map((one, index) => ({ id: `d${index}`, content: one })));

function plan(spec: MachineSpecInput, rest: { incoming?: boolean } = {}): string[] {
  const decoded = decodeMachineSpec(spec);
  return planCommandLine({
    spec: decoded,
    uuid: "u-u-i-d",
    accelerator: "tcg",
    seed: spec.userData !== undefined,
    disks: decoded.disks.map((disk): DiskPlan => ({
      spec: disk,
      path: `disk-${disk.id}.qcow2`,
      format: "qcow2",
      ...(disk.content.kind === "live" && { source: disk.content.source }),
    })),
    ...rest,
  });
}

/** `[option, value]` pairs in order; options that stand alone have an empty value. */
function pairs(args: readonly string[]): [string, string][] {
  const found: [string, string][] = [];
  for (let at = 0; at < args.length; at++) {
    const next = args[at + 1];
    const alone = next === undefined || next.startsWith("-");
    found.push([args[at] ?? "", alone ? "" : next]);
    if (!alone) at++;
  }
  return found;
}

test("every node, group and port is there before it is named, and no port is given twice", () => {
  fc.assert(
    fc.property(disks, (some) => {
      const known = new Set<string>();
      const takenPorts = new Set<string>();
      for (const [option, value] of pairs(
        plan({ id: "m", memoryMiB: 96, cpus: 1, boot: kernel, disks: some }),
      )) {
        if (option === "-device" && !value.startsWith("{")) known.add(/id=(port\d+)/.exec(value)?.[1] ?? "");
        if (!value.startsWith("{")) continue;
        const object = JSON.parse(value) as Record<string, unknown>;
        const names = ["file", "backing", "throttle-group", "drive", "bus"].map((key) => object[key]);
        for (const name of names)
          if (typeof name === "string") assert.ok(known.has(name), `${name} in ${value}`);
        const { bus } = object;
        if (typeof bus === "string") {
          assert.ok(!takenPorts.has(bus), bus);
          takenPorts.add(bus);
        }
        known.add(String(object["node-name"] ?? object["id"]));
      }
      assert.equal(takenPorts.size, Math.min(some.length, HOT_PLUG_PORTS));
    }),
  );
});

test("a disk that stands on an export pauses the guest instead of failing it, and is never written below", () => {
  const source = { kind: "unix", path: "/run/point.sock", export: "point 1" } as const;
  const args = plan({
    id: "m",
    memoryMiB: 96,
    cpus: 1,
    boot: kernel,
    disks: [{ id: "data", content: { kind: "live", sizeBytes: 5, source } }],
  });
  const nodes = pairs(args).flatMap(([, value]) =>
    value.startsWith("{") ? [JSON.parse(value) as Record<string, unknown>] : [],
  );
  const below = nodes.find((node) => node["node-name"] === "source-data");
  assert.equal(below?.["read-only"], true);
  // Else a read during the copy would succeed with nothing when the export cannot be asked: see planSourceNode.
  assert.equal(below?.["driver"], "quorum");
  const [child] = below["children"] as readonly Record<string, unknown>[];
  assert.deepEqual(child?.["server"], { type: "unix", path: "/run/point.sock" });
  const device = nodes.find((node) => node["id"] === "dev-data");
  assert.equal(device?.["rerror"], "stop");
  assert.equal(device?.["werror"], "stop");
});

test("what a guest is reached by is what was asked for, and nothing else", () => {
  const forwards = [{ hostPort: 8080, guestPort: 80 }];
  const spec = { id: "m", memoryMiB: 96, cpus: 1, boot: kernel } as const;
  const shut = plan({ ...spec, networks: [{ kind: "user", forwards }] });
  assert.ok(shut.includes("user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:8080-:80"));
  const open = plan({ ...spec, networks: [{ kind: "user", outbound: true }] });
  assert.ok(open.includes("user,id=net0"));
  const tap = plan({
    ...spec,
    networks: [{ kind: "tap", device: "tap7", address: "10.1.0.5/24", gateway: "10.1.0.1" }],
  });
  assert.ok(tap.includes("tap,id=net0,ifname=tap7,script=no,downscript=no"));
  assert.match(tap[tap.indexOf("-append") + 1] ?? "", /us\.ip=10\.1\.0\.5\/24 us\.gw=10\.1\.0\.1$/);
  assert.ok(!plan(spec).includes("-netdev"));
});

test("sockets and logs are named within the machine's folder, so that no folder is too deep for them", () => {
  for (const value of plan({
    id: "m",
    memoryMiB: 96,
    cpus: 1,
    boot: kernel,
    guestAgent: true,
    userData: "x",
  })) {
    for (const path of value.matchAll(/path=([^,]*)/g)) assert.ok(!path[1]?.startsWith("/"), value);
  }
});

test("a machine that boots from its disk has no kernel of the host's", () => {
  const args = plan({
    id: "m",
    memoryMiB: 512,
    cpus: 2,
    boot: { kind: "disk" },
    disks: ["root", "data"].map((id) => ({ id, content: { kind: "blank", sizeBytes: 1024 } })),
  });
  assert.ok(!args.includes("-kernel") && !args.includes("-bios"));
  // The seed is on the bus that the firmware looks at first.
  const booted = args.filter((word) => word.includes('"bootindex":0'));
  assert.equal(booted.length, 1);
  assert.match(booted[0] ?? "", /"serial":"root"/u);
});
