import assert from "node:assert/strict";
import { test } from "node:test";
import { OperationalError } from "#kernel/errors.ts";
import { silentLog } from "#kernel/log.ts";
import type { PriorityReader } from "#recovery/priorities/priority-reader.ts";
import { createVirtualClock, type VirtualClock } from "#testing/virtual-clock.ts";
import type { ServedRecord } from "./group-record.ts";
import { ServedMoments } from "./served-moments.ts";

const { signal } = new AbortController();
const minute = 60_000;
const taker = { site: "west", volumeId: "vol-w" };
const unreachable = (): Promise<never> =>
  Promise.reject(new OperationalError("vault.unreachable", "the store does not answer"));

/** What is served, over a store that the test holds in its hand. */
class Stage implements AsyncDisposable {
  readonly clock: VirtualClock = createVirtualClock();
  /** Instead of opening. */
  refuse: (() => Promise<never>) | undefined;
  remembering: (() => Promise<void>) | undefined;
  opened = 0;
  closed = 0;
  /** How many hold everything. */
  holds = 0;
  record: ServedRecord[] = [];
  #served: ServedMoments | undefined;

  get served(): ServedMoments {
    this.#served ??= this.#begin();
    return this.#served;
  }

  /** As after a restart, with what was remembered. */
  async restart(): Promise<void> {
    await this.#served?.[Symbol.asyncDispose]();
    this.#served = this.#begin();
  }

  #begin(): ServedMoments {
    const options = {
      open: async (): Promise<PriorityReader> => {
        if (this.refuse !== undefined) await this.refuse();
        this.opened += 1;
        let isOpen = true;
        return {
          sizeBytes: 4096,
          expectStart: () => {},
          read: async () => {
            assert.ok(isOpen, "a reader that is closed is not read");
            return Buffer.alloc(1);
          },
          [Symbol.asyncDispose]: async () => {
            isOpen = false;
            this.closed += 1;
          },
        } as unknown as PriorityReader;
      },
      holdAll: () => {
        this.holds += 1;
        let held = true;
        return () => {
          if (held) this.holds -= 1;
          held = false;
        };
      },
      remember: async (record: ServedRecord[]) => {
        await this.remembering?.();
        this.record = record;
      },
      clock: this.clock,
      log: silentLog,
    };
    return new ServedMoments(options, this.record);
  }

  pass(ms: number): Promise<void> {
    return this.clock.drive(this.clock.sleep(ms));
  }

  async isServed(sequence: number): Promise<boolean> {
    const opened = await this.served.openExport("vol", sequence);
    await opened?.[Symbol.asyncDispose]();
    return opened !== undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#served?.[Symbol.asyncDispose]();
    assert.equal(this.opened, this.closed, "what was opened is closed");
    assert.equal(this.holds, 0);
  }
}

test("a pinned moment stays, however long nobody is connected, also over restarts; unpinned it goes when it is idle", async () => {
  await using stage = new Stage();
  await stage.served.serve("vol", 1, taker, signal);
  await stage.served.serve("vol", 2, undefined, signal);
  await stage.pass(40 * minute);
  assert.ok(await stage.isServed(1));
  assert.ok(!(await stage.isServed(2)), "nobody has pinned it, and nobody reads it");
  await stage.restart();
  await stage.pass(40 * minute);
  assert.ok(await stage.isServed(1));
  assert.deepEqual(
    stage.served.pins().map((pin) => pin.taker),
    [taker],
  );
  await stage.served.unpin("vol", 1, { ...taker, volumeId: "another" });
  assert.equal(stage.served.pins().length, 1, "another disk may need it still");
  await stage.served.unpin("vol", 1, taker);
  await stage.served.unpin("vol", 1, taker);
  assert.ok(await stage.isServed(1));
  await stage.pass(40 * minute);
  assert.ok(!(await stage.isServed(1)));
  assert.deepEqual(stage.record, []);
});

test("whoever read before a restart has its time to come back", async () => {
  await using stage = new Stage();
  await stage.served.serve("vol", 1, undefined, signal);
  const [served] = stage.record;
  assert.ok(served !== undefined);
  // A reader that was connected for an hour wrote nothing down.
  stage.record = [{ ...served, usedAt: served.usedAt - 60 * minute }];
  await stage.restart();
  await stage.pass(5 * minute);
  assert.ok(await stage.isServed(1));
});

test("while the store does not answer after a restart, nothing is forgotten, and what it stands on is held", async () => {
  await using stage = new Stage();
  await stage.served.serve("vol", 1, undefined, signal);
  await stage.served.serve("vol", 2, taker, signal);
  assert.equal(stage.holds, 0, "an open one holds what it needs by itself");
  stage.refuse = unreachable;
  await stage.restart();
  await assert.rejects(stage.isServed(1), { code: "vault.unreachable" });
  await assert.rejects(stage.served.allOpen(), { code: "vault.unreachable" });
  await assert.rejects(stage.served.serve("vol", 3, undefined, signal), { code: "vault.unreachable" });
  assert.equal(stage.holds, 2, "of the one that nobody was told of, nothing stays");
  stage.refuse = undefined;
  await stage.pass(2 * minute);
  assert.equal(stage.holds, 0, "opened at the next turn");
  assert.ok((await stage.isServed(1)) && (await stage.isServed(2)));
  assert.deepEqual(
    stage.served.pins().map(({ sequence }) => sequence),
    [2],
  );
});

test("what is gone for good is served no more, what is damaged holds up nothing else", async () => {
  await using stage = new Stage();
  await stage.served.serve("vol", 1, undefined, signal);
  stage.refuse = () => Promise.reject(new OperationalError("vault.damaged", "a pack is not what it was"));
  await stage.restart();
  await stage.served.allOpen();
  assert.equal(stage.holds, 0);
  await assert.rejects(stage.isServed(1), { code: "vault.damaged" });
  stage.refuse = () => Promise.reject(new OperationalError("not_found", "it is gone"));
  assert.ok(!(await stage.isServed(1)));
  stage.refuse = undefined;
  assert.ok(!(await stage.isServed(1)));
});

test("who comes while idle ones are let go gets a reader that is open", async () => {
  await using stage = new Stage();
  await stage.served.serve("vol", 1, undefined, signal);
  await stage.served.serve("vol", 2, undefined, signal);
  const writing = Promise.withResolvers<void>();
  const written = Promise.withResolvers<void>();
  stage.remembering = async () => {
    writing.resolve();
    await written.promise;
  };
  // Both go in this turn; the record of it is still being written when one is asked for again.
  const passing = stage.pass(32 * minute);
  await writing.promise;
  stage.remembering = undefined;
  await stage.served.serve("vol", 2, undefined, signal);
  const again = await stage.served.openExport("vol", 2);
  written.resolve();
  await passing;
  assert.equal((await again?.device.read(0, 1))?.length, 1);
  await again?.[Symbol.asyncDispose]();
  assert.ok(await stage.isServed(2));
});

test("a record that cannot be written ends neither the sweep nor the process", async () => {
  await using stage = new Stage();
  await stage.served.serve("vol", 1, undefined, signal);
  stage.remembering = () => Promise.reject(new OperationalError("store.full", "the disk is full"));
  await stage.pass(32 * minute);
  await assert.rejects(stage.served.serve("vol", 2, taker, signal), { code: "store.full" });
  assert.ok(!(await stage.isServed(2)), "what is not durable is not served");
  stage.remembering = undefined;
  await stage.served.serve("vol", 2, taker, signal);
  await stage.pass(2 * minute);
  assert.deepEqual(
    stage.record.map(({ sequence }) => sequence),
    [2],
  );
});
