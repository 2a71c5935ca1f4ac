/** What guest a server of this cloud becomes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { ServerLaunch } from "#devcloud/core/compute.ts";
import { decodeMachineSpec } from "#hypervisor/machine-spec.ts";
import { planGuest } from "#hypervisor/guests/guest-plan.ts";
import { bearsTypes, guestMemoryMiB, guestOf } from "./qemu-guest-spec.ts";

void test("a guest's memory follows its type between what it boots in and what a laptop bears", () => {
  assert.deepEqual([256, 512, 1024, 2048, 4096, 1 << 20].map(guestMemoryMiB), [96, 96, 96, 128, 256, 256]);
});

void test("the host bears types by the memory that their guests get", () => {
  const limits = { memoryMiB: 2 * 168, guests: 10 };
  const nano = { id: "", name: "", vcpus: 1, memoryMiB: 512, diskGiB: 0, architecture: "" };
  assert.ok(bearsTypes(limits, [nano], [nano]));
  assert.ok(!bearsTypes(limits, [nano, nano], [nano]));
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

void test("a server's guest: two processors at most, its first interface's address", () => {
  const machine = decodeMachineSpec(planGuest(guestOf(launch, image), []).spec);
  assert.equal(machine.cpus, 2);
  assert.equal(machine.memoryMiB, 96);
  assert.equal(machine.networks[0]?.mac, "0a:00:00:00:00:01");
});
