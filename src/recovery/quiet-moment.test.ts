import assert from "node:assert/strict";
import { test } from "node:test";
import type { CaptureState, DiskHost } from "#cloud/disk-host.ts";
import { systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { resourceId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import { quietMoment } from "#recovery/quiet-moment.ts";

const id = resourceId;
const { signal } = new AbortController();

function environment(power: Readonly<Record<string, "running" | "stopped">>): EnvironmentState {
  const state = new EnvironmentState();
  for (const [name, is] of Object.entries(power)) {
    const spec = { imageId: "img", type: "small", groupIds: [], publicAddress: false, blockDevices: [] };
    state.put({ kind: "server", id: id(name), spec: { ...spec, power: is }, tags: {} });
    const volumeId = id(`vol-${name}`);
    state.put({ kind: "volume", id: volumeId, spec: { sizeGiB: 1 }, tags: {} });
    const attachment = { volumeId, serverId: id(name), device: "/dev/sdf", deleteOnTermination: false };
    state.put({ kind: "volumeAttachment", id: id(`${name}@`), spec: attachment, tags: {} });
  }
  return state;
}

/** Everything works, but for what is said otherwise. Every call is written down. */
class Host {
  readonly calls: string[] = [];
  readonly deaf = new Set<string>();
  readonly refusing = new Set<string>();
  readonly empty = new Set<string>();
  readonly short = new Set<string>();
  capture: CaptureState = "continuous";

  door(volumes: readonly string[]): DiskHost {
    const door: Partial<DiskHost> = {
      agentAnswers: async (server) => !this.deaf.has(server),
      freeze: async (server) => {
        this.calls.push(`freeze ${server}`);
        if (this.refusing.has(server)) throw new OperationalError("machine.failing", "it is busy");
        return { fileSystems: this.empty.has(server) ? 0 : 1 };
      },
      thaw: async (server) => {
        this.calls.push(`thaw ${server}`);
        return { held: !this.short.has(server) };
      },
      captures: async () =>
        volumes.map((volumeId) => ({
          volumeId,
          uri: "nbd://v",
          state: this.capture,
          reason: null,
          copiedBytes: 0,
          totalBytes: 0,
          since: 0,
        })),
    };
    return door as DiskHost;
  }
}

async function take(
  host: Host,
  power: Readonly<Record<string, "running" | "stopped">> = { a: "running", b: "running" },
  moment: () => Promise<{ sequence: number; at: number }> = async () => {
    host.calls.push("moment");
    return { sequence: 7, at: 70 };
  },
) {
  const volumes = Object.keys(power).map((name) => id(`vol-${name}`));
  const state = environment(power);
  const ports = { state, kept: new Set(volumes), host: host.door(volumes), limitMs: 1000 };
  return quietMoment({ ...ports, moment, clock: systemClock, log: silentLog }, signal);
}

test("every server stands still before the moment is taken, and moves again after it", async () => {
  const host = new Host();
  assert.deepEqual(await take(host), { sequence: 7, at: 70, consistency: "application" });
  assert.deepEqual(host.calls, ["freeze a", "freeze b", "moment", "thaw a", "thaw b"]);
});

test("a server that is off writes nothing, and is not asked", async () => {
  const host = new Host();
  host.deaf.add("b");
  assert.equal((await take(host, { a: "running", b: "stopped" })).consistency, "application");
  assert.deepEqual(host.calls, ["freeze a", "moment", "thaw a"]);
});

test("one whose agent does not answer: nobody stands still for it", async () => {
  const host = new Host();
  host.deaf.add("b");
  const taken = await take(host);
  assert.equal(taken.consistency, "crash");
  assert.match(taken.consistency === "crash" ? (taken.why ?? "") : "", /no guest agent answers in b/u);
  assert.deepEqual(host.calls, ["moment"]);
});

test("what does not stand still, or not until the end, makes it crash-consistent, says why, and all are let go", async () => {
  for (const [spoil, said] of [
    [(host: Host) => host.refusing.add("a"), /a could not be held still: it is busy/u],
    [(host: Host) => host.empty.add("b"), /no file system of b/u],
    [(host: Host) => host.short.add("b"), /b did not stand still long enough/u],
    [(host: Host) => (host.capture = "interrupted"), /capture of vol-a, vol-b is not continuous/u],
  ] as const) {
    const host = new Host();
    spoil(host);
    const taken = await take(host);
    assert.equal(taken.consistency, "crash");
    assert.match(taken.consistency === "crash" ? (taken.why ?? "") : "", said);
    assert.deepEqual(host.calls.slice(-2), ["thaw a", "thaw b"]);
  }
});

test("a vault that fails in between: all are let go, and the failure is told", async () => {
  const host = new Host();
  const failing = () => Promise.reject(new OperationalError("api.unreachable", "the vault is away"));
  await assert.rejects(take(host, undefined, failing), { code: "api.unreachable" });
  assert.deepEqual(host.calls.slice(-2), ["thaw a", "thaw b"]);
});

test("without a host agent nobody can hold anything still", async () => {
  const moment = async () => ({ sequence: 1, at: 2 });
  const state = environment({ a: "running" });
  const ports = { state, kept: new Set([id("vol-a")]), host: undefined, limitMs: 1, moment };
  const taken = await quietMoment({ ...ports, clock: systemClock, log: silentLog }, signal);
  assert.match(taken.consistency === "crash" ? (taken.why ?? "") : "", /no host agent/u);
});
