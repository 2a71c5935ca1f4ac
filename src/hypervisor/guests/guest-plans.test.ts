/** What a guest becomes, from what is on record alone. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { mostForwardedPorts } from "#cloud/rule-forms.ts";
import type { CaptureStatus } from "#hypervisor/capture.ts";
import { decodeDiskSpec, decodeMachineSpec } from "#hypervisor/machine-spec.ts";
import { viewCapture } from "./capture-view.ts";
import { type ForwardRule, parseForwards, planForwards } from "./forwards.ts";
import { type GuestServer, planGuest } from "./guest-plan.ts";
import { bearsGuests } from "./host-capacity.ts";
import { diskIdOf } from "./volume-files.ts";

function rule(part: Partial<ForwardRule>): ForwardRule {
  return { groupId: "g", direction: "ingress", protocol: "tcp", fromPort: 80, toPort: 80, ...part };
}

void test("single ports and small ranges are forwarded; the rest is said", () => {
  const { ports, remarks } = planForwards([
    rule({}),
    rule({ fromPort: 8000, toPort: 8000 + mostForwardedPorts - 1 }),
    rule({ fromPort: 9000, toPort: 9000 + mostForwardedPorts }),
    rule({ protocol: "udp", fromPort: 53, toPort: 53 }),
    rule({ protocol: "icmp", fromPort: null, toPort: null }),
    rule({ protocol: "all", fromPort: null, toPort: null }),
    rule({ direction: "egress", fromPort: 443, toPort: 443 }),
    rule({ fromPort: 80, toPort: 81 }),
  ]);
  const tcp = (port: number) => ({ protocol: "tcp", port });
  const range = Array.from({ length: mostForwardedPorts }, (_, index) => tcp(8000 + index));
  assert.deepEqual(ports, [tcp(80), ...range, { protocol: "udp", port: 53 }, tcp(81)]);
  assert.equal(remarks.length, 3);
  assert.match(remarks[0] ?? "", /^g lets in tcp \(9000-9032\).*name the ports$/);
  assert.match(remarks[1] ?? "", /icmp \(all ports\).*only TCP and UDP/);
  assert.match(remarks[2] ?? "", /all \(all ports\).*only TCP and UDP/);
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
  assert.deepEqual(parseForwards(answer), ["tcp:127.40.0.2:80", "tcp:127.40.0.3:443", "udp:127.40.0.2:53"]);
});

void test("the host bears guests up to its memory and its number, and not one more", () => {
  const limits = { memoryMiB: 2 * 168, guests: 10 };
  assert.ok(bearsGuests(limits, [96, 96]));
  assert.ok(!bearsGuests(limits, [96, 97]));
  assert.ok(!bearsGuests({ memoryMiB: 1 << 20, guests: 2 }, [96, 96, 96]));
});

void test("a disk is found by a serial number of what virtio takes", () => {
  assert.equal(diskIdOf("vol-0123456789abcdef0"), "vol0123456789abcdef0");
  assert.equal(diskIdOf("d5fd2d5b-4f3a-4c1c-9dd3-0c9a3c6e2f11"), "d5fd2d5b-4f3a-4c1c-9");
  for (const id of ["vol-0123456789abcdef0", "d5fd2d5b-4f3a-4c1c-9dd3-0c9a3c6e2f11"]) {
    decodeDiskSpec({ id: diskIdOf(id), content: { kind: "blank", sizeBytes: 1 } });
  }
});

const server: GuestServer = {
  id: "i-0123456789abcdef0",
  name: "My Web_Server!",
  cpus: 2,
  memoryMiB: 512,
  boot: { kind: "kernel", kernelPath: "/k" },
  userData: null,
  readyLine: "ready",
  outbound: false,
};

void test("a server's guest: its name, its user data", () => {
  const userData = Buffer.from("#!/bin/sh\necho grün\n").toString("base64");
  const { spec, remarks } = planGuest({ ...server, userData }, []);
  assert.deepEqual(remarks, []);
  const machine = decodeMachineSpec(spec);
  assert.equal(machine.hostname, "my-web-server");
  assert.equal(machine.userData, "#!/bin/sh\necho grün\n");
  assert.equal(planGuest({ ...server, name: "***" }, []).spec.hostname, "server");
});

void test("user data that no guest can be given is left out, and that is said", () => {
  const bytes = planGuest({ ...server, userData: Buffer.from([0x1f, 0x8b, 8]).toString("base64") }, []);
  assert.equal(bytes.spec.userData, undefined);
  assert.match(bytes.remarks[0] ?? "", /not text/);
  const long = planGuest({ ...server, userData: Buffer.alloc(65_537, "x").toString("base64") }, []);
  assert.equal(long.spec.userData, undefined);
  assert.match(long.remarks[0] ?? "", /65536/);
});

void test("a capture is continuous only while nothing that was written is missing", () => {
  const lastSync = { kind: "full", bytes: 9, reason: "", tookMs: 1 } as const;
  const status: CaptureStatus = {
    state: "continuous",
    whole: true,
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
  assert.equal(seen({ state: "waiting", whole: false, behindSince: 5 }, false), "interrupted");
  assert.equal(seen({ state: "waiting", whole: false, lastSync: null }, false), "interrupted");
  assert.equal(seen({ whole: false }, true), "interrupted");
  assert.equal(seen({}, false), "interrupted");
  assert.equal(seen({ state: "waiting" }, true), "synchronising");
});
