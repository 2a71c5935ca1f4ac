// A server of an overlay, killed at any moment: what was flushed is there afterwards, and nothing is there that was never written.
import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type NbdClient, openNbdClient } from "#nbd/nbd-client.ts";
import { type Fraction, seededFraction } from "#wire/aws/shape-sample.ts";
import { startPeer } from "../traffic/peer-process.ts";
import { isListening, patternedDisk, ports, workFolder } from "./nbd-peers.ts";

const rounds = Number(process.env["KILL_ROUNDS"] ?? 5);
const firstSeed = Number(process.env["KILL_SEED"] ?? 1);
const sizeBytes = 4 * 1024 * 1024;
const unit = 512;

/** A write to some units. Two of one unit are never under way at once. */
interface Written {
  /** Undefined: as the base has it. */
  readonly value: number | undefined;
  /** Its place among the answers; undefined while there is none. */
  answered?: number;
}

/** What may be found in each unit of 512 bytes: its last write that was durable for sure, and all since. */
class Expectation {
  readonly #base: Buffer;
  readonly #units: Written[][] = Array.from({ length: sizeBytes / unit }, () => [
    { value: undefined, answered: 0 },
  ]);
  #answers = 0;

  constructor(base: Buffer) {
    this.#base = base;
  }

  begin(units: readonly number[], value: number): Written {
    const written = { value };
    for (const index of units) this.#units[index]?.push(written);
    return written;
  }

  answered(written: Written, units: readonly number[], durable: boolean): void {
    this.#answers += 1;
    written.answered = this.#answers;
    if (durable) for (const index of units) this.#dropBefore(index, this.#answers);
  }

  /** To be called when a flush begins; the result, when it has succeeded. */
  beginFlush(): () => void {
    const covered = this.#answers;
    return () => {
      for (const index of this.#units.keys()) this.#dropBefore(index, covered);
    };
  }

  #dropBefore(index: number, covered: number): void {
    const writes = this.#units[index] ?? [];
    const last = writes.findLastIndex(({ answered }) => answered !== undefined && answered <= covered);
    writes.splice(0, Math.max(0, last));
  }

  /** After the restart: whatever was found is the one thing that may be there from now on. */
  check(disk: Buffer, seed: number): void {
    for (const [index, writes] of this.#units.entries()) {
      const found = disk.subarray(index * unit, (index + 1) * unit);
      const match = writes.find(({ value }) =>
        found.equals(
          value === undefined
            ? this.#base.subarray(index * unit, (index + 1) * unit)
            : Buffer.alloc(unit, value),
        ),
      );
      const allowed = writes.map(({ value }) => value ?? "base").join(" ");
      if (match === undefined)
        assert.fail(`seed ${seed}: ${found[0]} at ${index * unit}, allowed: ${allowed}`);
      this.#units[index] = [{ value: match.value, answered: 0 }];
    }
  }
}

/** Writes, zeroes and flushes, several at once, until the server is gone. Returns how many were answered. */
async function work(
  client: NbdClient,
  expected: Expectation,
  fraction: Fraction,
  kill: () => void,
): Promise<number> {
  const killAfter = 5 + Math.floor(fraction() * 120);
  let answered = 0;
  let dead = false;
  const busy = new Set<number>();
  const worker = async (): Promise<void> => {
    while (!dead) {
      const length = unit * (1 + Math.floor(fraction() ** 3 * 100));
      const offset = unit * Math.floor(fraction() * ((sizeBytes - length) / unit));
      const units = Array.from({ length: length / unit }, (_, index) => offset / unit + index);
      const kind = fraction();
      try {
        if (kind < 0.15) {
          const flushed = expected.beginFlush();
          await client.flush();
          flushed();
        } else if (!units.some((index) => busy.has(index))) {
          for (const index of units) busy.add(index);
          const value = kind < 0.3 ? 0 : 1 + Math.floor(fraction() * 255);
          const written = expected.begin(units, value);
          const fua = kind > 0.9;
          if (value === 0) await client.zero(offset, length, { fua });
          else await client.write(offset, Buffer.alloc(length, value), { fua });
          expected.answered(written, units, fua);
          for (const index of units) busy.delete(index);
        }
        answered += 1;
        if (answered === killAfter) kill();
      } catch {
        dead = true;
      }
    }
  };
  await Promise.all([worker(), worker(), worker(), worker()]);
  return answered;
}

test("an overlay's server is killed again and again, and no flushed write is missing", async () => {
  using folder = workFolder();
  const base = patternedDisk(sizeBytes);
  writeFileSync(folder.file("base"), base);
  const expected = new Expectation(base);
  let answered = 0;
  for (let seed = firstSeed; seed < firstSeed + rounds; seed += 1) {
    const socket = folder.file(`s${seed}`);
    const args = [
      join(import.meta.dirname, "overlay-server.ts"),
      socket,
      folder.file("overlay"),
      folder.file("base"),
    ];
    await using peer = await startPeer(process.execPath, args, () => isListening(socket));
    const options = {
      address: { kind: "unix", path: socket },
      exportName: "disk",
      ...ports,
      reconnectMs: 0,
    } as const;
    await using client = await openNbdClient({ ...options, connections: 2 });
    expected.check(await client.read(0, sizeBytes), seed);
    const gone = once(peer.process, "exit");
    answered += await work(client, expected, seededFraction(seed), () => peer.process.kill("SIGKILL"));
    await gone;
  }
  assert.ok(answered > rounds * 5, `${answered} requests were answered`);
});
