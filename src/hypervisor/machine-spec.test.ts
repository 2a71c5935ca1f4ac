import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeMachineSpec } from "./machine-spec.ts";

const good = {
  id: "web-1",
  memoryMiB: 112,
  cpus: 1,
  boot: { kind: "kernel", kernelPath: "/k" },
  disks: [{ id: "data", content: { kind: "blank", sizeBytes: 4096 } }],
};

test("what is left out has a default", () => {
  const spec = decodeMachineSpec(good);
  assert.equal(spec.disks[0]?.readOnly, false);
  assert.equal(spec.guestAgent, false);
  assert.deepEqual(spec.networks, []);
  // Decoding what was decoded changes nothing: records are read back this way.
  assert.deepEqual(decodeMachineSpec(spec), spec);
});

test("what cannot be is refused, and the message names the field", () => {
  const refusals: [unknown, RegExp][] = [
    [{ ...good, id: "../x" }, /machine\.id/],
    [{ ...good, id: "UP" }, /machine\.id/],
    [{ ...good, memoryMiB: 72 }, /machine\.memoryMiB/],
    [{ ...good, colour: "red" }, /colour/],
    [{ ...good, disks: [{ id: "a/b", content: { kind: "blank", sizeBytes: 1 } }] }, /machine\.disks\.0\.id/],
    [{ ...good, disks: [{ id: "d", content: { kind: "existing", path: "x", format: "raw" } }] }, /path/],
    [{ ...good, disks: [...good.disks, ...good.disks] }, /two disks/],
    [{ ...good, disks: [{ id: "cidata", content: { kind: "blank", sizeBytes: 1 } }] }, /cidata/],
    [{ ...good, boot: { kind: "disk" }, disks: [] }, /boots from a disk/],
    [{ ...good, networks: [{ kind: "tap", device: "x".repeat(16) }] }, /networks\.0\.device/],
    // What would be further options of QEMU's, of which one names a program to run.
    [{ ...good, networks: [{ kind: "tap", device: "t,script=/x" }] }, /networks\.0\.device/],
    [
      { ...good, networks: [{ kind: "tap", device: "t", gateway: "10.0.0.1 init=/x" }] },
      /networks\.0\.gateway/,
    ],
    [{ ...good, networks: [{ kind: "user", mac: "52:54:00:00:00:01,rombar=1" }] }, /networks\.0\.mac/],
    [
      {
        ...good,
        networks: [
          {
            kind: "user",
            forwards: [
              { hostAddress: "127.0.0.1:1-:1,guestfwd=tcp:10.0.2.100:80-cmd:id", hostPort: 1, guestPort: 1 },
            ],
          },
        ],
      },
      /networks\.0\.forwards\.0\.hostAddress/,
    ],
  ];
  for (const [input, message] of refusals) {
    assert.throws(() => decodeMachineSpec(input), { code: "input.invalid", message });
  }
});
