// A moment that a disk takes its content from, with the vault as a process of its own, killed, and qemu as the reader.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { isOperational } from "#kernel/errors.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";
import { connectDesk } from "#recovery/desk/serve-desk.ts";
import { VaultStage } from "./vault-stage.ts";

const run = promisify(execFile);
const sizeBytes = 8 * 1024 * 1024;
const group = "shop";
const volume = "vol-1";
const taker = { site: "west", volumeId: "vol-w" };

test(
  "pinned, a moment is there long after the window, with nobody connected and over the vault's death",
  { timeout: 180_000 },
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), "understudy-pinned-"));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const image = join(folder, "disk.raw");
    const then = randomBytes(sizeBytes);
    writeFileSync(image, then);
    await using vault = await VaultStage.open(folder, "1s");
    const desk = connectDesk(join(folder, "vault"));
    t.after(() => desk[Symbol.asyncDispose]());
    await vault.takeIn(volume, image, sizeBytes, t.signal);
    /** As a host: what it has written is whole. */
    const writeOn = async (fill: number): Promise<void> => {
      const { uri } = await desk.protect(group, { volume, sizeBytes, epoch: 1 }, t.signal);
      await run("qemu-io", ["-f", "raw", "-c", `write -P ${fill} 0 64k`, uri], { signal: t.signal });
      const [kept] = await desk.volumes(group, t.signal);
      await desk.markWhole(group, volume, kept?.session ?? 0, t.signal);
    };
    const kill = async (): Promise<void> => {
      await vault.kill();
      await vault.start();
    };
    await writeOn(1);
    writeFileSync(image, then.fill(1, 0, 65_536));
    const moment = await desk.moment(group, null, t.signal);
    const { uri } = await desk.pin(group, volume, moment, taker, t.signal);
    const compare = (): Promise<unknown> =>
      run("qemu-img", ["compare", "-f", "raw", "-F", "raw", image, uri], { signal: t.signal });

    await kill();
    await compare();
    // Points hold what came since, and the window of a second has long left it behind.
    for (let fill = 2; !(await isBehind(moment)); fill = 2 + (fill % 250)) await writeOn(fill);
    await kill();
    await compare();
    assert.deepEqual(
      (await desk.pins(group, t.signal)).map((pin) => [pin.sequence, pin.taker, pin.uri]),
      [[moment.sequence, taker, uri]],
    );
    await desk.unpin(group, { volume, sequence: moment.sequence, taker }, t.signal);
    await kill();
    assert.deepEqual(await desk.pins(group, t.signal), []);

    async function isBehind({ sequence, at }: DiskMoment): Promise<boolean> {
      const status = await desk.status(group, t.signal);
      return (status?.foldedSequence ?? 0) > sequence && (status?.last?.at ?? 0) > at + 5000;
    }

    await assert.rejects(desk.pin(group, "vol-2", moment, taker, t.signal), (error) =>
      isOperational(error, "not_found"),
    );
  },
);
