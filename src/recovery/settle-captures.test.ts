import assert from "node:assert/strict";
import { test } from "node:test";
import type { CaptureStatus } from "#cloud/disk-host.ts";
import { resourceId } from "#kernel/ids.ts";
import { capture, environment, FakeHost, FakeVault } from "#recovery/disk-peers.fixture.ts";
import { settleCaptures } from "#recovery/settle-captures.ts";
import type { KeptVolume } from "#recovery/vault-desk.ts";
import { createVirtualClock } from "#testing/virtual-clock.ts";

interface Case {
  readonly says: Partial<CaptureStatus> | null;
  readonly kept?: Partial<KeptVolume>;
  readonly arrives?: boolean;
  /** Undefined: it is settled. */
  readonly behind?: RegExp;
  readonly waitsMs: number;
}

const unwhole = { state: "synchronising", confirmed: false } as const;
const cases: Readonly<Record<string, Case>> = {
  "captured to the last write": { says: {}, waitsMs: 0 },
  "whole as soon as the vault is told": { says: {}, kept: unwhole, waitsMs: 50 },
  "still copied": {
    says: { state: "synchronising", reason: "bitmap" },
    kept: unwhole,
    behind: /its capture is synchronising/u,
    waitsMs: 20_000,
  },
  "not captured at all": { says: null, behind: /not captured/u, waitsMs: 20_000 },
  "a machine that is off, after its last write was captured": { says: { reason: "machine_off" }, waitsMs: 0 },
  "the same, and the vault was started anew since": {
    says: { reason: "machine_off" },
    kept: { session: 0, confirmed: false },
    waitsMs: 0,
  },
  "a machine that is off, and was behind": {
    says: { state: "interrupted", reason: "machine_off" },
    behind: /start the server/u,
    waitsMs: 0,
  },
  "detached, and whole": { says: { state: "synchronising", reason: "not_attached" }, waitsMs: 0 },
  "never attached": {
    says: { state: "synchronising", reason: "not_attached" },
    kept: unwhole,
    behind: /attach it to a server/u,
    waitsMs: 0,
  },
  "live, with its own content still to come": {
    says: { state: "interrupted", reason: "its own content is still being copied in" },
    arrives: true,
    behind: /still comes over/u,
    waitsMs: 20_000,
  },
  "detached before its own content had come": {
    says: { state: "synchronising", reason: "not_attached" },
    arrives: true,
    behind: /still comes over/u,
    waitsMs: 0,
  },
};

for (const [name, { says, kept = {}, arrives = false, behind, waitsMs }] of Object.entries(cases)) {
  test(`a disk: ${name}`, async () => {
    const clock = createVirtualClock();
    const [host, vault] = [new FakeHost(), new FakeVault()];
    const volumeId = resourceId("vol-1");
    if (says !== null) host.captured.set(volumeId, capture(volumeId, says));
    if (arrives) {
      const state = "copying";
      host.seeded.set(volumeId, { volumeId, uri: "vault:m", state, copiedBytes: 0, totalBytes: 1 });
    }
    vault.keep(volumeId, kept);
    const begun = clock.now();
    const settled = await clock.drive(
      settleCaptures(
        { environment, desk: vault.desk, host: host.host, clock },
        [{ volumeId, lineage: volumeId }],
        new AbortController().signal,
      ),
    );
    assert.equal(clock.now() - begun, waitsMs);
    assert.equal(settled.silence, null);
    assert.equal(settled.behind.length, behind === undefined ? 0 : 1);
    if (behind !== undefined) assert.match(settled.behind[0]?.problem ?? "", behind);
  });
}

test("a host that does not answer is named after a while, and does not fail the whole", async () => {
  const clock = createVirtualClock();
  const [host, vault] = [new FakeHost(), new FakeVault()];
  host.silent = true;
  const settled = await clock.drive(
    settleCaptures(
      { environment, desk: vault.desk, host: host.host, clock },
      [{ volumeId: resourceId("vol-1"), lineage: "vol-1" }],
      new AbortController().signal,
    ),
  );
  assert.match(settled.silence ?? "", /does not answer/u);
  assert.equal(settled.behind.length, 1);
});
