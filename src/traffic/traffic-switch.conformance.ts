/**
 * What every traffic switch must do (the contract is in traffic-switch.ts), asked of the real thing behind it.
 * A fixture starts that thing; each test has its own.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { addressOf, type Backend, type TrafficSwitch } from "#traffic/traffic-switch.ts";

export interface SwitchFixture extends AsyncDisposable {
  readonly route: TrafficSwitch;
  /** Four that the thing can be switched to; the fourth never answers to anybody, and need not. */
  readonly backends: readonly [Backend, Backend, Backend, Backend];
  /** The addresses that users of the route are served by now, found as a user would, sorted. */
  servedBy(): Promise<string[]>;
  /** A switch whose peer does not answer, where the switch has a peer. */
  readonly unreachable?: TrafficSwitch;
  /** A switch with credentials that the peer does not accept, where it has credentials. */
  readonly stranger?: TrafficSwitch;
}

/** Every switch must give up on a silent peer by then. */
const UNREACHABLE_MS = 15_000;
const live = new AbortController().signal;

async function inForce(route: TrafficSwitch): Promise<string[]> {
  return (await route.read(live)).backends.map(addressOf).sort();
}

export interface ConformanceOptions {
  /** Why the suite cannot run here (a missing program); absent: it runs. */
  readonly skip?: string;
}

export function trafficSwitchConformance(
  name: string,
  open: () => Promise<SwitchFixture>,
  options: ConformanceOptions = {},
): void {
  const suite = { timeout: 120_000, ...(options.skip === undefined ? {} : { skip: options.skip }) };
  void describe(`traffic switch conformance: ${name}`, suite, () => {
    void it("applies a target, which is then in force and serves, and takes it again", async () => {
      await using fixture = await open();
      const [a] = fixture.backends;
      await fixture.route.apply({ epoch: 1, backends: [a] }, live);
      assert.deepEqual(await inForce(fixture.route), [addressOf(a)]);
      assert.deepEqual(await fixture.servedBy(), [addressOf(a)]);
      await fixture.route.apply({ epoch: 1, backends: [a] }, live);
      assert.deepEqual(await inForce(fixture.route), [addressOf(a)]);
    });

    void it("replaces, grows and shrinks the set", async () => {
      await using fixture = await open();
      const [a, b, c] = fixture.backends;
      for (const backends of [[a], [b, c], [a, b, c], [c], [a, b]]) {
        await fixture.route.apply({ epoch: 1, backends }, live);
        assert.deepEqual(await inForce(fixture.route), backends.map(addressOf).sort());
        assert.deepEqual(await fixture.servedBy(), backends.map(addressOf).sort());
      }
    });

    void it("refuses an empty set and malformed backends, and the old set serves on", async () => {
      await using fixture = await open();
      const [a, b] = fixture.backends;
      await fixture.route.apply({ epoch: 1, backends: [a] }, live);
      const twice = [b, { ...b, id: "twin" }];
      for (const backends of [
        [],
        [{ ...b, host: "no host" }],
        [{ ...b, port: 0 }],
        [{ ...b, weight: 0 }],
        twice,
      ]) {
        await assert.rejects(
          fixture.route.apply({ epoch: 9, backends }, live),
          (error) => isOperational(error, "input.invalid") && error.outcome === "not_applied",
        );
      }
      assert.deepEqual(await fixture.servedBy(), [addressOf(a)]);
      await fixture.route.apply({ epoch: 2, backends: [b] }, live);
      assert.deepEqual(await fixture.servedBy(), [addressOf(b)]);
    });

    void it("refuses an epoch that is over, and takes the same one and a later one", async () => {
      await using fixture = await open();
      const [a, b] = fixture.backends;
      await fixture.route.apply({ epoch: 7, backends: [a] }, live);
      await assert.rejects(
        fixture.route.apply({ epoch: 6, backends: [b] }, live),
        (error) => isOperational(error, "state.fenced") && error.outcome === "not_applied",
      );
      assert.deepEqual(await inForce(fixture.route), [addressOf(a)]);
      await fixture.route.apply({ epoch: 7, backends: [b] }, live);
      await fixture.route.apply({ epoch: 8, backends: [a] }, live);
      assert.deepEqual(await inForce(fixture.route), [addressOf(a)]);
    });

    void it("ends with one whole set when two are applied at the same time", async () => {
      await using fixture = await open();
      const [a, b, c] = fixture.backends;
      await fixture.route.apply({ epoch: 1, backends: [a] }, live);
      const results = await Promise.allSettled([
        fixture.route.apply({ epoch: 1, backends: [a, b] }, live),
        fixture.route.apply({ epoch: 1, backends: [c] }, live),
      ]);
      assert.ok(results.some((result) => result.status === "fulfilled"));
      const now = (await inForce(fixture.route)).join();
      assert.ok(now === [a, b].map(addressOf).sort().join() || now === addressOf(c), now);
    });

    void it("gives up on a peer that does not answer, and says what is known", async (test) => {
      await using fixture = await open();
      if (fixture.unreachable === undefined) {
        test.diagnostic("has no peer");
        return;
      }
      const { unreachable, backends } = fixture;
      const started = performance.now();
      await assert.rejects(
        unreachable.apply({ epoch: 1, backends: [backends[0]] }, live),
        (error) => isOperational(error, "traffic.unreachable") && error.retry === "later",
      );
      await assert.rejects(unreachable.read(live), (error) => isOperational(error, "traffic.unreachable"));
      assert.ok(performance.now() - started < UNREACHABLE_MS);
    });

    void it("says so when its credentials are not accepted, and changes nothing", async (test) => {
      await using fixture = await open();
      if (fixture.stranger === undefined) {
        test.diagnostic("has no credentials");
        return;
      }
      const [a, b] = fixture.backends;
      await fixture.route.apply({ epoch: 1, backends: [a] }, live);
      await assert.rejects(fixture.stranger.apply({ epoch: 1, backends: [b] }, live), (error) =>
        isOperational(error, "auth.invalid"),
      );
      assert.deepEqual(await inForce(fixture.route), [addressOf(a)]);
    });

    void it("does nothing for a caller that has gone", async () => {
      await using fixture = await open();
      const [a, b] = fixture.backends;
      await fixture.route.apply({ epoch: 1, backends: [a] }, live);
      await assert.rejects(fixture.route.apply({ epoch: 1, backends: [b] }, AbortSignal.abort()));
      assert.deepEqual(await inForce(fixture.route), [addressOf(a)]);
    });
  });
}
