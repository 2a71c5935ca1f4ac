import assert from "node:assert/strict";
import { test } from "node:test";
import type { CaptureTarget } from "#vault/write-log/capture-target.ts";
import { CaptureSession } from "./capture-session.ts";
import { WriteOrder } from "./write-order.ts";

/** A disk that is being copied again; comparing a block with it waits for the test. */
class SlowTarget {
  readonly written: number[] = [];
  content = Buffer.alloc(4096, 7);
  gate = Promise.withResolvers<void>();

  get status(): { readonly state: "synchronising" } {
    return { state: "synchronising" };
  }

  async beginSynchronisation(): Promise<void> {}

  async read(): Promise<Buffer> {
    const present = Buffer.from(this.content);
    await this.gate.promise;
    return present;
  }

  async write(_offset: number, data: Uint8Array): Promise<void> {
    this.content = Buffer.from(data);
    this.written.push(data[0] ?? 0);
  }
}

function sessionsOver(target: SlowTarget, admit: () => void = () => {}): [CaptureSession, CaptureSession] {
  const order = new WriteOrder();
  const options = { target: target as unknown as CaptureTarget, order, admit, wasWhole: () => true };
  return [new CaptureSession(options), new CaptureSession(options)];
}

test("what a connection that was given up sent before does not land after what its successor sent", async () => {
  const target = new SlowTarget();
  const [givenUp, successor] = sessionsOver(target);
  const old = givenUp.write(0, Buffer.alloc(4096, 1));
  const newer = successor.write(0, Buffer.alloc(4096, 2));
  target.gate.resolve();
  await Promise.all([old, newer]);
  assert.deepEqual(target.written, [1, 2]);
  assert.equal(target.content[0], 2);
});

test("a block is compared with what is there when its turn has come", async () => {
  const target = new SlowTarget();
  const [first, second] = sessionsOver(target);
  const changed = first.write(0, Buffer.alloc(4096, 1));
  const changedBack = second.write(0, Buffer.alloc(4096, 7));
  target.gate.resolve();
  await Promise.all([changed, changedBack]);
  assert.equal(target.content[0], 7);
});

test("a write that waited for the store while its epoch was fenced comes in no more", async () => {
  const target = new SlowTarget();
  let fenced = false;
  const [session] = sessionsOver(target, () => {
    if (fenced) throw new Error("fenced");
  });
  const late = session.write(0, Buffer.alloc(4096, 1));
  fenced = true;
  target.gate.resolve();
  await assert.rejects(late, /fenced/u);
  assert.deepEqual(target.written, []);
});
