/** What a guest becomes, from the records alone. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { ServerLaunch } from "#devcloud/core/compute.ts";
import type { RuleRecord } from "#devcloud/core/records.ts";
import type { CaptureStatus } from "#hypervisor/capture.ts";
import { decodeDiskSpec, decodeMachineSpec } from "#hypervisor/machine-spec.ts";
import { bearsGuests, bearsTypes } from "./host-capacity.ts";
import { viewCapture } from "./qemu-capture-view.ts";
import { LARGEST_RANGE, parseForwards, planForwards } from "./qemu-forwards.ts";
import { guestMemoryMiB, planGuest } from "./qemu-guest-spec.ts";
import { diskIdOf } from "./qemu-volumes.ts";

function rule(part: Partial<RuleRecord>): RuleRecord {
  return {
    id: "r",
    name: "",
    createdAt: 0,
    tags: {},
    extra: {},
    groupId: "g",
    direction: "ingress",
    protocol: "tcp",
    fromPort: 80,
    toPort: 80,
    peer: { kind: "cidr4", cidr: "0.0.0.0/0" },
    description: null,
    ...part,
  };
}

void test("single ports and small ranges are forwarded; the rest is said", () => {
  const { ports, remarks } = planForwards([
    rule({}),
    rule({ fromPort: 8000, toPort: 8000 + LARGEST_RANGE - 1 }),
    rule({ fromPort: 9000, toPort: 9000 + LARGEST_RANGE }),
    rule({ protocol: "udp", fromPort: 53, toPort: 53 }),
    rule({ protocol: "all", fromPort: null, toPort: null }),
    rule({ direction: "egress", fromPort: 443, toPort: 443 }),
    rule({ fromPort: 80, toPort: 81 }),
  ]);
  const range = Array.from({ length: LARGEST_RANGE }, (_, index) => 8000 + index);
  assert.deepEqual(ports, [80, ...range, 81]);
  assert.equal(remarks.length, 3);
  assert.match(remarks[0] ?? "", /^g lets in tcp \(9000-9032\).*name the ports$/);
  assert.match(remarks[1] ?? "", /udp \(port 53\).*only TCP/);
  assert.match(remarks[2] ?? "", /all \(all ports\).*only TCP/);
});

void test("more ports than a guest gets listeners are cut, and that is said", () => {
  const rules = Array.from({ length: 70 }, (_, index) =>
    rule({ fromPort: 100 + index, toPort: 100 + index }),
  );
  const { ports, remarks } = planForwards(rules);
  assert.equal(ports.length, 64);
  assert.deepEqual(remarks, ["only the first 64 of 70 admitted ports reach this guest"]);
});

void test("what QEMU says that it forwards", () => {
  const answer = [
    "Hub -1 (net0):",
    "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ",
    "  TCP[ESTABLISHED]   30      127.40.0.2    80       10.0.2.15    80     0     0",
    "  TCP[HOST_FORWARD]  21      127.40.0.2    80       10.0.2.15    80     0     0",
    "  TCP[HOST_FORWARD]  22      127.40.0.3   443       10.0.2.15   443     0     0",
    "  UDP[HOST_FORWARD]  23      127.40.0.2    53       10.0.2.15    53     0     0",
    "",
  ].join("\r\n");
  assert.deepEqual(parseForwards(answer, "127.40.0.2"), [80]);
});

void test("a guest's memory follows its type between what it boots in and what a laptop bears", () => {
  assert.deepEqual([256, 512, 1024, 2048, 4096, 1 << 20].map(guestMemoryMiB), [96, 96, 96, 128, 256, 256]);
});

void test("the host bears guests up to its memory and its number, and not one more", () => {
  const limits = { memoryMiB: 2 * 168, guests: 10 };
  assert.ok(bearsGuests(limits, [96, 96]));
  assert.ok(!bearsGuests(limits, [96, 97]));
  assert.ok(!bearsGuests({ memoryMiB: 1 << 20, guests: 2 }, [96, 96, 96]));
  const nano = { id: "", name: "", vcpus: 1, memoryMiB: 512, diskGiB: 0, architecture: "" };
  assert.ok(bearsTypes(limits, [nano], [nano]));
  assert.ok(!bearsTypes(limits, [nano, nano], [nano]));
});

void test("a disk is found by a serial number of what virtio takes", () => {
  assert.equal(diskIdOf("vol-0123456789abcdef0"), "vol0123456789abcdef0");
  assert.equal(diskIdOf("d5fd2d5b-4f3a-4c1c-9dd3-0c9a3c6e2f11"), "d5fd2d5b-4f3a-4c1c-9");
  for (const id of ["vol-0123456789abcdef0", "d5fd2d5b-4f3a-4c1c-9dd3-0c9a3c6e2f11"]) {
    decodeDiskSpec({ id: diskIdOf(id), content: { kind: "blank", sizeBytes: 1 } });
  }
});

const launch: ServerLaunch = {
  id: "i-0123456789abcdef0",
  name: "My Web_Server!",
  address: "127.40.0.2",
  privateIp: null,
  publicIp: null,
  imageId: "ami",
  type: "t3.nano",
  vcpus: 8,
  memoryMiB: 512,
  boot: 1,
  zone: "z",
  region: "r",
  macs: ["0a:00:00:00:00:01", "0a:00:00:00:00:02"],
  groupNames: [],
  keyName: null,
  publicKey: null,
  userData: null,
  tags: {},
};
const image = { kernelPath: "/k", initrdPath: "/i", kernelVersion: "", digest: "" };

void test("a server's guest: its name, its address, its user data", () => {
  const userData = Buffer.from("#!/bin/sh\necho grün\n").toString("base64");
  const { spec, remarks } = planGuest({ ...launch, userData }, image, []);
  assert.deepEqual(remarks, []);
  const machine = decodeMachineSpec(spec);
  assert.equal(machine.hostname, "my-web-server");
  assert.equal(machine.cpus, 2);
  assert.equal(machine.userData, "#!/bin/sh\necho grün\n");
  assert.equal(machine.networks[0]?.mac, "0a:00:00:00:00:01");
  assert.equal(planGuest({ ...launch, name: "***" }, image, []).spec.hostname, "server");
});

void test("user data that no guest can be given is left out, and that is said", () => {
  const bytes = planGuest(
    { ...launch, userData: Buffer.from([0x1f, 0x8b, 8]).toString("base64") },
    image,
    [],
  );
  assert.equal(bytes.spec.userData, undefined);
  assert.match(bytes.remarks[0] ?? "", /not text/);
  const long = planGuest({ ...launch, userData: Buffer.alloc(65_537, "x").toString("base64") }, image, []);
  assert.equal(long.spec.userData, undefined);
  assert.match(long.remarks[0] ?? "", /65536/);
});

void test("a capture is continuous only while nothing that was written is missing", () => {
  const lastSync = { kind: "full", bytes: 9, reason: "", tookMs: 1 } as const;
  const status: CaptureStatus = {
    state: "continuous",
    behindSince: null,
    pendingBytes: 0,
    lastSync,
    mirroredBytes: 0,
    interruptions: 0,
    lastInterruption: null,
  };
  const seen = (part: Partial<CaptureStatus>, isOn: boolean): string =>
    viewCapture({ ...status, ...part }, isOn).state;
  assert.equal(viewCapture(undefined, true).state, "synchronising");
  assert.equal(seen({}, true), "continuous");
  assert.equal(seen({ state: "seeding" }, true), "synchronising");
  assert.equal(seen({ state: "resynchronising" }, true), "synchronising");
  assert.equal(seen({ state: "behind", behindSince: 5 }, true), "interrupted");
  assert.equal(viewCapture({ ...status, state: "behind", behindSince: 5 }, true).since, 5);
  // Off: as it was when the guest wrote last.
  assert.equal(seen({ state: "waiting" }, false), "continuous");
  assert.equal(seen({ state: "waiting", behindSince: 5 }, false), "interrupted");
  assert.equal(seen({ state: "waiting", lastSync: null }, false), "interrupted");
  assert.equal(seen({ state: "waiting" }, true), "synchronising");
});
