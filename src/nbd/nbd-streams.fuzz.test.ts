// Damaged and invented byte streams against both ends. Whatever comes: the connection ends, nothing hangs or escapes, memory is bounded.
import assert from "node:assert/strict";
import { test } from "node:test";
import { OperationalError } from "#kernel/errors.ts";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { fuzzRuns, fuzzSeed } from "#wire/aws/fuzz-mutation.ts";
import { type Fraction, seededFraction } from "#wire/aws/shape-sample.ts";
import {
  encodeClientFlags,
  encodeGreeting,
  encodeInfo,
  encodeInfoRequest,
  encodeMetaContext,
  encodeMetaContextRequest,
  encodeOption,
  encodeOptionReply,
} from "#wire/nbd/handshake.ts";
import { nbdCommand, nbdOption, optionReply } from "#wire/nbd/protocol.ts";
import {
  dataChunkHeadBytes,
  encodeDoneChunk,
  encodeErrorChunk,
  encodeHoleChunk,
  encodeRequest,
  encodeSimpleReply,
  encodeStatusChunk,
  writeDataChunkHead,
} from "#wire/nbd/transmission.ts";
import { ClientConnection } from "./client-connection.ts";
import { negotiateAsClient } from "./client-handshake.ts";
import { singleExport } from "./export-provider.ts";
import { MemoryDevice } from "./memory-device.ts";
import { scriptedStream } from "./scripted-stream.fixture.ts";
import { negotiate } from "./server-handshake.ts";
import { TransmissionServer } from "./transmission-server.ts";

const never = new AbortController().signal;
const sizeBytes = 1024 * 1024;
const below = (fraction: Fraction, limit: number): number => Math.floor(fraction() * limit);

/** Valid bytes, then up to four damages: bits, numbers at their limits, cuts, repeats. */
function damaged(valid: Buffer, fraction: Fraction): Buffer {
  let bytes = Buffer.from(valid);
  const damages = below(fraction, 5);
  for (let count = 0; count < damages && bytes.length > 0; count += 1) {
    const at = below(fraction, bytes.length);
    switch (below(fraction, 5)) {
      case 0:
        bytes[at] = (bytes[at] ?? 0) ^ (1 << below(fraction, 8));
        break;
      case 1:
        if (at + 4 <= bytes.length)
          bytes.writeUInt32BE(
            [0, 1, 0x7fffffff, 0xffffffff, 0x02000001, 65_536][below(fraction, 6)] ?? 0,
            at,
          );
        break;
      case 2:
        bytes = bytes.subarray(0, at);
        break;
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + below(fraction, 40))]);
        break;
      default:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.max(0, at - 60))]);
    }
  }
  return bytes;
}

function cut(bytes: Buffer, fraction: Fraction): Buffer[] {
  const pieces: Buffer[] = [];
  const most = fraction() < 0.3 ? 9 : 4_000;
  for (let at = 0; at < bytes.length;) {
    const length = 1 + below(fraction, most);
    pieces.push(bytes.subarray(at, at + length));
    at += length;
  }
  return pieces;
}

function clientSession(fraction: Fraction): Buffer {
  const parts = [encodeClientFlags(3)];
  const name = { exportName: fraction() < 0.9 ? "disk" : "other" };
  const option = (): Buffer => {
    switch (below(fraction, 8)) {
      case 0:
        return encodeOption(nbdOption.list);
      case 1:
        return encodeOption(nbdOption.info, encodeInfoRequest({ ...name, infos: [0, 1, 2, 3] }));
      case 2:
        return encodeOption(nbdOption.startTls);
      case 3:
        return encodeOption(nbdOption.listMetaContext, encodeMetaContextRequest({ ...name, queries: [] }));
      case 4:
        return encodeOption(below(fraction, 20), Buffer.alloc(below(fraction, 90), "o"));
      default:
        return encodeOption(nbdOption.structuredReply);
    }
  };
  for (let count = below(fraction, 4); count > 0; count -= 1) parts.push(option());
  const queries = ["base:allocation"];
  if (fraction() < 0.7)
    parts.push(encodeOption(nbdOption.setMetaContext, encodeMetaContextRequest({ ...name, queries })));
  if (fraction() < 0.2) parts.push(encodeOption(nbdOption.exportName, Buffer.from(name.exportName)));
  else parts.push(encodeOption(nbdOption.go, encodeInfoRequest({ ...name, infos: [3] })));
  for (let count = below(fraction, 9); count > 0; count -= 1) {
    const command = below(fraction, 9);
    const length = below(fraction, 5_000);
    const offset = fraction() < 0.8 ? below(fraction, sizeBytes - 5_000) : below(fraction, 2 ** 40);
    const flags = fraction() < 0.7 ? 0 : below(fraction, 32);
    parts.push(encodeRequest({ command, flags, cookieHigh: 1, cookieLow: count, offset, length }));
    if (command === nbdCommand.write) parts.push(Buffer.alloc(length, "w"));
  }
  return Buffer.concat(parts);
}

async function serve(input: Buffer[]): Promise<{ phase: string; written: Buffer }> {
  const device = new MemoryDevice({ sizeBytes });
  const { stream, written } = scriptedStream(input);
  let phase = "handshake";
  try {
    const negotiated = await negotiate(
      stream,
      {
        provider: singleExport("disk", device, { cheapExtents: true }),
        access: "write",
        tls: "off",
        startTls: () => Promise.reject(new OperationalError("internal", "not offered")),
      },
      never,
    );
    if (negotiated !== undefined) {
      phase = "transmission";
      await new TransmissionServer(
        negotiated,
        { maxRequests: 4, maxBytes: 8_192 },
        { clock: systemClock, log: silentLog },
      ).run();
    }
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    phase += " refused";
  }
  return { phase, written: written() };
}

/** Streams that run side by side: each waits for turns of the event loop, which cost as much for one as for many. */
const abreast = 100;

async function fuzzAsync(each: (fraction: Fraction) => Promise<void>): Promise<void> {
  const first = fuzzSeed();
  const end = first + fuzzRuns();
  const before = process.memoryUsage().rss;
  for (let seed = first; seed < end; seed += abreast) {
    const open = new Set<number>();
    let timer: NodeJS.Timeout | undefined;
    const hung = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`a connection did not end: replay with FUZZ_RUNS=1 FUZZ_SEED=${[...open][0]}`));
      }, 20_000);
    });
    const one = async (own: number): Promise<void> => {
      open.add(own);
      await each(seededFraction(own)).catch((error: unknown) => {
        throw new Error(`replay with FUZZ_RUNS=1 FUZZ_SEED=${own}`, { cause: error });
      });
      open.delete(own);
    };
    const seeds = Array.from({ length: Math.min(abreast, end - seed) }, (_, index) => seed + index);
    await Promise.race([Promise.all(seeds.map(one)), hung]).finally(() => clearTimeout(timer));
  }
  const grown = process.memoryUsage().rss - before;
  assert.ok(grown < 768 * 1024 * 1024, `memory grew by ${grown} bytes`);
}

test("the server outlives every client stream", async () => {
  const phases = new Map<string, number>();
  await fuzzAsync(async (fraction) => {
    const { phase, written } = await serve(cut(damaged(clientSession(fraction), fraction), fraction));
    phases.set(phase, (phases.get(phase) ?? 0) + 1);
    assert.deepEqual(written.subarray(0, 18), encodeGreeting(3));
  });
  // The streams reach every phase: a fuzz test that never comes past the handshake tests little.
  if (fuzzRuns() >= 1_000)
    for (const phase of ["handshake refused", "transmission"])
      assert.ok((phases.get(phase) ?? 0) > 10, phase);
});

function serverSession(fraction: Fraction): Buffer {
  const structured = fraction() < 0.8;
  const answer = (option: number, type: number, data?: Buffer): Buffer =>
    encodeOptionReply(option, type, data);
  const parts = [encodeGreeting(3)];
  parts.push(answer(nbdOption.structuredReply, structured ? optionReply.ack : optionReply.errUnsupported));
  if (structured) {
    parts.push(
      answer(
        nbdOption.setMetaContext,
        optionReply.metaContext,
        encodeMetaContext({ id: 1, name: "base:allocation" }),
      ),
    );
    parts.push(answer(nbdOption.setMetaContext, optionReply.ack));
  }
  parts.push(answer(nbdOption.go, optionReply.info, encodeInfo({ type: "export", sizeBytes, flags: 0xfff })));
  parts.push(
    answer(
      nbdOption.go,
      optionReply.info,
      encodeInfo({ type: "blockSize", minimum: 1, preferred: 4096, maximum: 65_536 }),
    ),
  );
  parts.push(answer(nbdOption.go, optionReply.ack));
  for (let cookieLow = 1; cookieLow <= 6; cookieLow += 1)
    parts.push(...replyTo(cookieLow, structured, fraction));
  return Buffer.concat(parts);
}

/** The client asks, in this order: read, write, status, read, zero, flush. */
function replyTo(cookieLow: number, structured: boolean, fraction: Fraction): Buffer[] {
  const cookie = { cookieHigh: 0, cookieLow };
  const reads = cookieLow === 1 || cookieLow === 4;
  if (fraction() < 0.1)
    return [structured ? encodeErrorChunk(cookie, 5, "no") : encodeSimpleReply(cookie, 5)];
  if (!structured) return [encodeSimpleReply(cookie, 0), ...(reads ? [Buffer.alloc(4_096, "r")] : [])];
  if (cookieLow === 3) {
    const extents = [
      { length: 1_000, flags: 0 },
      { length: 3_096, flags: 3 },
    ];
    return [encodeStatusChunk(cookie, { contextId: 1, extents, done: true })];
  }
  if (!reads) return [fraction() < 0.5 ? encodeDoneChunk(cookie) : encodeSimpleReply(cookie, 0)];
  const offset = cookieLow * 10_000;
  const head = Buffer.alloc(dataChunkHeadBytes);
  writeDataChunkHead(head, cookie, { offset, length: 1_096, done: false });
  const hole = encodeHoleChunk(cookie, { offset: offset + 1_096, length: 3_000, done: true });
  return [head, Buffer.alloc(1_096, "r"), hole];
}

/** How the six requests ended; rejects when one never does. */
async function converse(input: Buffer[]): Promise<string[]> {
  const { stream } = scriptedStream(input);
  stream.on("error", () => {});
  let negotiated: Awaited<ReturnType<typeof negotiateAsClient>>;
  try {
    negotiated = await negotiateAsClient(
      stream,
      { exportName: "disk", contexts: ["base:allocation"] },
      never,
    );
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    stream.destroy();
    return [error.code];
  }
  const ends = new Map<number, (end: string) => void>();
  const connection = new ClientConnection(negotiated, {
    lost: (_connection, { unanswered, refused }) => {
      for (const operation of [...unanswered, ...refused]) operation.reject(new Error("lost"));
    },
    settled: () => {},
    draining: () => {},
  });
  const commands = [
    nbdCommand.read,
    nbdCommand.write,
    nbdCommand.blockStatus,
    nbdCommand.read,
    nbdCommand.writeZeroes,
    nbdCommand.flush,
  ];
  const results = commands.map((command, index) => {
    const reads = command === nbdCommand.read;
    return new Promise<string>((resolve) => {
      ends.set(index, resolve);
      const settleOnce = (end: string): void => {
        assert.ok(ends.delete(index), "settled twice");
        resolve(end);
      };
      connection.send({
        command,
        flags: 0,
        offset: (index + 1) * 10_000,
        length: 4_096,
        ...(reads && { target: Buffer.alloc(4_096) }),
        ...(command === nbdCommand.write && { payload: Buffer.alloc(4_096) }),
        ...(command === nbdCommand.blockStatus && { statuses: new Map() }),
        resolve: () => settleOnce("ok"),
        reject: (error) => settleOnce(error.message === "lost" ? "lost" : "failed"),
        isAbandoned: () => false,
      });
    });
  });
  return Promise.all(results);
}

test("the client outlives every server stream, and every request of it is settled once", async () => {
  const ends = new Map<string, number>();
  await fuzzAsync(async (fraction) => {
    for (const end of await converse(cut(damaged(serverSession(fraction), fraction), fraction)))
      ends.set(end, (ends.get(end) ?? 0) + 1);
  });
  if (fuzzRuns() >= 1_000)
    for (const end of ["ok", "failed", "lost", "nbd.protocol", "nbd.unreachable"])
      assert.ok((ends.get(end) ?? 0) > 10, `${end} in ${JSON.stringify([...ends])}`);
});
