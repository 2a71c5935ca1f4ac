import assert from "node:assert/strict";
import { test } from "node:test";
import type { Cloud } from "#cloud/contract.ts";
import { OperationalError } from "#kernel/errors.ts";
import { resourceId, type ResourceId } from "#kernel/ids.ts";
import { createVirtualClock } from "#testing/virtual-clock.ts";
import { fenceSite, type FenceRequest, type FenceResult } from "#takeover/fence.ts";

const servers = ["i-1", "i-2", "i-3"].map(resourceId);

interface Site {
  readonly cloud: Cloud;
  /** Servers that were asked to stop, in order. */
  readonly asked: string[];
}

/** A site that answers as told; only what a fence uses of a cloud. */
function site(
  answer: (looks: number) => Error | null,
  stop: (id: ResourceId, times: number) => Error | null = () => null,
): Site {
  const asked: string[] = [];
  let looks = 0;
  const cloud = {
    facts: { concurrency: 2 },
    identify: (signal: AbortSignal) => {
      looks += 1;
      const error = answer(looks);
      if (error === hangs)
        return new Promise((_, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
        });
      return error === null ? Promise.resolve({ account: "a" }) : Promise.reject(error);
    },
    update: (_kind: string, id: ResourceId, set: object) => {
      assert.deepEqual(set, { power: "stopped" });
      asked.push(id);
      const error = stop(id, asked.filter((one) => one === id).length);
      return error === null ? Promise.resolve() : Promise.reject(error);
    },
  };
  return { cloud: cloud as unknown as Cloud, asked };
}

const hangs = new Error("never answers");
const unreachable = new OperationalError("cloud.unreachable", "connect ECONNREFUSED");

function fence(cloud: Cloud, over: Partial<FenceRequest> = {}): Promise<FenceResult> {
  const clock = createVirtualClock();
  const signal = new AbortController().signal;
  return clock.drive(
    fenceSite({
      cloud,
      clock,
      servers,
      mode: "stop_servers",
      force: false,
      answerWithinMs: 50,
      signal,
      ...over,
    }),
  );
}

test("a site that answers has all its servers stopped", async () => {
  const { cloud, asked } = site(() => null);
  const result = await fence(cloud);
  assert.equal(result.answered, true);
  assert.deepEqual(result.stopped.toSorted(), servers);
  assert.deepEqual(asked.toSorted(), servers);
});

for (const [what, error] of [
  ["is unreachable", unreachable],
  ["fails", new OperationalError("cloud.failing", "500")],
  ["never answers", hangs],
] as const) {
  test(`a site that ${what} is left behind unfenced, and that is said`, async () => {
    const { cloud, asked } = site(() => error);
    const result = await fence(cloud);
    assert.deepEqual([result.answered, result.stopped, result.unfenced], [false, [], []]);
    assert.match(result.summary, /does not answer .* fenced when it does/);
    assert.deepEqual(asked, []);
  });
}

test("a site that refuses us is alive: without force nothing goes on", async () => {
  const { cloud } = site(() => new OperationalError("cloud.credentials", "the key is not valid"));
  await assert.rejects(fence(cloud), {
    code: "state.conflict",
    message: /3 of its servers could not be stopped \(the key is not valid\).*--force/,
  });
  const forced = await fence(cloud, { force: true });
  assert.deepEqual([forced.answered, forced.unfenced], [true, servers]);
  assert.match(forced.summary, /3 left running by force/);
});

test("one server that will not stop holds up everything, unless forced; the rest are stopped all the same", async () => {
  const stubborn = (id: ResourceId): Error | null =>
    id === "i-2" ? new OperationalError("cloud.refused", "protected against stop") : null;
  const { cloud, asked } = site(() => null, stubborn);
  await assert.rejects(fence(cloud), {
    code: "state.conflict",
    message: /1 of its servers .*protected/,
    detail: "i-2",
  });
  assert.deepEqual(asked.toSorted(), servers);
  const forced = await fence(cloud, { force: true });
  assert.deepEqual(forced.unfenced, ["i-2"]);
  assert.deepEqual(forced.stopped.toSorted(), ["i-1", "i-3"]);
});

test("throttled and lost answers are asked again, and only for the servers that they were about", async () => {
  const passing = (id: ResourceId, times: number): Error | null => {
    if (id === "i-1" && times === 1) return new OperationalError("cloud.throttled", "slow down");
    if (id === "i-3" && times <= 2)
      return new OperationalError("cloud.timeout", "no answer", { outcome: "unknown" });
    return null;
  };
  const { cloud, asked } = site(() => null, passing);
  const result = await fence(cloud);
  assert.deepEqual(result.stopped.toSorted(), servers);
  assert.deepEqual(asked.toSorted(), ["i-1", "i-1", "i-2", "i-3", "i-3", "i-3"]);
});

test("a site that dies in the midst of being fenced is no reason to stay with it", async () => {
  const { cloud } = site(
    (looks) => (looks === 1 ? null : unreachable),
    (id) => (id === "i-1" ? null : unreachable),
  );
  const result = await fence(cloud);
  assert.equal(result.answered, false);
  assert.deepEqual(result.stopped, ["i-1"]);
  assert.match(result.summary, /after 1 of its servers were stopped/);
});

test("a server that is gone needs no fence", async () => {
  const { cloud } = site(
    () => null,
    () => new OperationalError("cloud.not_found", "no such server"),
  );
  assert.deepEqual((await fence(cloud)).unfenced, []);
});

test("by epoch alone nothing is stopped, and it is told whether the site answers", async () => {
  const alive = site(() => null);
  const answering = await fence(alive.cloud, { mode: "epoch_only" });
  assert.deepEqual([answering.answered, alive.asked], [true, []]);
  const dead = site(() => unreachable);
  const silent = await fence(dead.cloud, { mode: "epoch_only" });
  assert.deepEqual([silent.answered, dead.asked], [false, []]);
});

test("the caller's end is no silence of the site", async () => {
  const stop = new AbortController();
  const { cloud } = site(() => {
    stop.abort(new Error("the control plane is closing"));
    return new Error("aborted");
  });
  await assert.rejects(fence(cloud, { signal: stop.signal }), /closing/);
});
