import assert from "node:assert/strict";
import { test } from "node:test";
import { OperationalError } from "#kernel/errors.ts";
import { silentLog } from "#kernel/log.ts";
import { createVirtualClock } from "#testing/virtual-clock.ts";
import type { DiskRecords } from "./disk-ledger.ts";
import { type FreezableMachine, FreezeWatch } from "./freeze-watch.ts";

class Guest implements FreezableMachine {
  readonly id = "i-1";
  isOn = true;
  frozen = false;
  readonly failures: Error[] = [];
  readonly agent = {
    freeze: async () => {
      this.frozen = true;
      return this.#answer(2);
    },
    thaw: async () => {
      const count = await this.#answer(2);
      this.frozen = false;
      return count;
    },
  };

  #answer(value: number): Promise<number> {
    const failure = this.failures.shift();
    return failure === undefined ? Promise.resolve(value) : Promise.reject(failure);
  }
}

const silent = (): OperationalError => new OperationalError("machine.failing", "no guest agent answered");
const { signal } = new AbortController();

function open() {
  const clock = createVirtualClock();
  const ledger = {
    records: { frozen: {} as Record<string, true> } as unknown as DiskRecords,
    setFrozen: async (id: string, frozen: boolean) => {
      const { [id]: _, ...others } = (ledger.records.frozen ?? {}) as Record<string, true>;
      ledger.records = { ...ledger.records, frozen: frozen ? { ...others, [id]: true } : others };
    },
  };
  const watch = new FreezeWatch({ ledger, clock, log: silentLog });
  return { clock, ledger, watch, guest: new Guest() };
}

test("held until it is let go, and on record as long", async () => {
  const { watch, guest, ledger } = open();
  assert.equal(await watch.hold(guest, 1000, signal), 2);
  assert.deepEqual([guest.frozen, ledger.records.frozen], [true, { "i-1": true }]);
  assert.equal(await watch.release(guest, signal), true);
  assert.deepEqual([guest.frozen, ledger.records.frozen], [false, {}]);
  assert.equal(await watch.release(guest, signal), false, "nothing was held");
});

test("the limit lets go, and whoever comes after it hears that it was not held", async () => {
  const { watch, guest, clock, ledger } = open();
  guest.failures.length = 0;
  await clock.drive(
    (async () => {
      await watch.hold(guest, 1000, signal);
      // The guest's agent is silent for a while just then.
      guest.failures.push(silent(), silent());
      await clock.sleep(999);
      assert.ok(guest.frozen);
      await clock.sleep(1002);
      assert.equal(guest.frozen, false);
      assert.equal(await watch.release(guest, signal), false);
      assert.deepEqual(ledger.records.frozen, {});
    })(),
  );
});

test("a freeze that fails may have held something: it is let go", async () => {
  const { watch, guest, clock, ledger } = open();
  guest.failures.push(silent(), silent());
  await clock.drive(
    (async () => {
      await assert.rejects(watch.hold(guest, 60_000, signal), { code: "machine.failing" });
      assert.ok(guest.frozen);
      await clock.sleep(600);
      assert.deepEqual([guest.frozen, ledger.records.frozen], [false, {}]);
    })(),
  );
});

test("a thaw that fails is said, and tried on until the guest has done it or is off", async () => {
  const { watch, guest, clock, ledger } = open();
  await clock.drive(
    (async () => {
      await watch.hold(guest, 60_000, signal);
      guest.failures.push(silent(), silent(), silent());
      await assert.rejects(watch.release(guest, signal), { code: "machine.failing" });
      await clock.sleep(1600);
      assert.equal(guest.frozen, false);
      await watch.hold(guest, 100, signal);
      guest.failures.push(...Array.from({ length: 50 }, silent));
      await clock.sleep(2000);
      assert.deepEqual(ledger.records.frozen, { "i-1": true });
      guest.isOn = false;
      await clock.sleep(1000);
      assert.deepEqual(ledger.records.frozen, {});
    })(),
  );
});

test("what an agent that was killed left standing still, the next one lets go", async () => {
  const first = open();
  await first.watch.hold(first.guest, 60_000, signal);
  await first.watch[Symbol.asyncDispose]();
  assert.ok(first.guest.frozen);
  const next = open();
  next.ledger.records = first.ledger.records;
  await next.clock.drive(
    (async () => {
      next.watch.resume([first.guest]);
      await next.clock.sleep(1);
      assert.equal(first.guest.frozen, false);
    })(),
  );
  assert.deepEqual(next.ledger.records.frozen, {});
});
