import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  decodeExportNameReply,
  decodeGreeting,
  decodeInfo,
  decodeInfoRequest,
  decodeListedExport,
  decodeMetaContext,
  decodeMetaContextRequest,
  decodeOptionHeader,
  decodeOptionReplyHeader,
  encodeExportNameReply,
  encodeGreeting,
  encodeInfo,
  encodeInfoRequest,
  encodeListedExport,
  encodeMetaContext,
  encodeMetaContextRequest,
  encodeOption,
  encodeOptionReply,
} from "./handshake.ts";
import { type ReplyChunk, ReplyParser, type ReplySink } from "./reply-parser.ts";
import { RequestParser } from "./request-parser.ts";
import {
  type NbdRequest,
  dataChunkHeadBytes,
  encodeDoneChunk,
  encodeErrorChunk,
  encodeHoleChunk,
  encodeRequest,
  encodeSimpleReply,
  encodeStatusChunk,
  readRequest,
  writeDataChunkHead,
} from "./transmission.ts";

const u16 = fc.nat(0xffff);
const u32 = fc.nat(0xffffffff);
const size = fc.maxSafeNat();
const text = fc.string({ unit: "grapheme", maxLength: 60 }).filter((value) => !value.includes("\0"));
const bytes = fc.uint8Array({ maxLength: 200 }).map((value) => Buffer.from(value));

test("what is encoded in the handshake decodes to itself", () => {
  fc.assert(
    fc.property(u16, u32, u32, bytes, size, (flags, option, type, data, sizeBytes) => {
      assert.equal(decodeGreeting(encodeGreeting(flags)), flags);
      assert.deepEqual(decodeOptionHeader(encodeOption(option, data)), { option, length: data.length });
      assert.deepEqual(decodeOptionReplyHeader(encodeOptionReply(option, type, data)), {
        option,
        type,
        length: data.length,
      });
      assert.deepEqual(decodeExportNameReply(encodeExportNameReply(sizeBytes, flags, true)), {
        sizeBytes,
        flags,
      });
      assert.equal(encodeExportNameReply(sizeBytes, flags, false).length, 134);
    }),
  );
  fc.assert(
    fc.property(
      text,
      fc.array(u16, { maxLength: 9 }),
      fc.array(text, { maxLength: 9 }),
      (exportName, infos, queries) => {
        assert.deepEqual(decodeInfoRequest(encodeInfoRequest({ exportName, infos })), { exportName, infos });
        assert.deepEqual(decodeMetaContextRequest(encodeMetaContextRequest({ exportName, queries })), {
          exportName,
          queries,
        });
      },
    ),
  );
  fc.assert(
    fc.property(u32, u16, text, text, size, (id, flags, name, description, sizeBytes) => {
      assert.deepEqual(decodeMetaContext(encodeMetaContext({ id, name })), { id, name });
      assert.deepEqual(decodeListedExport(encodeListedExport({ name, description })), { name, description });
      const infos = [
        { type: "export", sizeBytes, flags },
        { type: "name", name },
        { type: "description", description },
        { type: "blockSize", minimum: id, preferred: id, maximum: id },
      ] as const;
      for (const info of infos) assert.deepEqual(decodeInfo(encodeInfo(info)), info);
    }),
  );
});

const request = fc.record(
  { flags: u16, command: fc.nat(9), cookieHigh: u32, cookieLow: u32, offset: size, length: fc.nat(300) },
  { noNullPrototype: true },
);

/** The stream cut at the given fractions. */
function pieces(stream: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set([0, ...cuts.map((cut) => Math.floor(cut * stream.length)), stream.length])].sort(
    (a, b) => a - b,
  );
  return places.slice(1).map((to, index) => stream.subarray(places[index], to));
}

const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 });

test("requests come out as they went in, however the stream is cut and whenever the sink takes its time", () => {
  fc.assert(
    fc.property(
      fc.array(request, { maxLength: 12 }),
      cuts,
      fc.infiniteStream(fc.nat(3)),
      (requests, cuts, moods) => {
        const payloadOf = (sent: NbdRequest): Buffer => Buffer.alloc(sent.length, sent.cookieLow & 0xff);
        const stream = Buffer.concat(
          requests.flatMap((sent) => [encodeRequest(sent), ...(sent.command === 1 ? [payloadOf(sent)] : [])]),
        );
        const seen: NbdRequest[] = [];
        let discarding = false;
        const parser = new RequestParser({
          admit: () => {
            const mood = moods.next().value;
            discarding = mood === 2;
            return mood === 0 ? "wait" : discarding ? "discard" : "take";
          },
          payload: (length) => Buffer.alloc(length),
          request: (got, payload) => {
            seen.push(got);
            if (got.command === 1 && got.length > 0)
              assert.deepEqual(payload, discarding ? undefined : payloadOf(got));
            else assert.equal(payload, undefined);
          },
        });
        for (const piece of pieces(stream, cuts)) {
          let rest = piece;
          do {
            rest = rest.subarray(parser.feed(rest));
          } while (parser.waiting || rest.length > 0);
        }
        assert.deepEqual(seen, requests);
        assert.ok(parser.atBoundary);
      },
    ),
  );
});

test("a request decodes to itself, and other magic to nothing", () => {
  fc.assert(
    fc.property(request, (sent) => {
      const encoded = encodeRequest(sent);
      assert.deepEqual(readRequest(encoded), sent);
      encoded[0] = 0;
      assert.equal(readRequest(encoded), undefined);
    }),
  );
});

type Event =
  | { readonly type: "simple"; readonly error: number }
  | { readonly type: "data"; readonly offset: number; readonly data: string }
  | ReplyChunk
  | { readonly type: "done" };

const reply = fc.record({
  cookieHigh: u32,
  cookieLow: u32,
  kind: fc.constantFrom(
    "simple" as const,
    "data" as const,
    "hole" as const,
    "status" as const,
    "error" as const,
    "none" as const,
  ),
  offset: size,
  length: fc.integer({ min: 1, max: 300 }),
  error: fc.integer({ min: 1, max: 200 }),
  done: fc.boolean(),
});

test("replies come out as they went in, however the stream is cut", () => {
  fc.assert(
    fc.property(fc.array(reply, { maxLength: 12 }), cuts, (replies, cuts) => {
      const expected: Event[] = [];
      const stream = Buffer.concat(
        replies.flatMap((sent): Buffer[] => {
          const done: Event[] = sent.done ? [{ type: "done" }] : [];
          const { offset, length, error } = sent;
          switch (sent.kind) {
            case "simple":
              expected.push({ type: "simple", error }, { type: "done" });
              return [encodeSimpleReply(sent, error)];
            case "none":
              expected.push({ type: "done" });
              return [encodeDoneChunk(sent)];
            case "error":
              expected.push({ type: "error", error, message: "no" }, { type: "done" });
              return [encodeErrorChunk(sent, error, "no")];
            case "hole":
              expected.push({ type: "hole", offset, length }, ...done);
              return [encodeHoleChunk(sent, sent)];
            case "status": {
              const extents = [{ length, flags: error }];
              expected.push({ type: "status", contextId: 7, extents }, ...done);
              return [encodeStatusChunk(sent, { contextId: 7, extents, done: sent.done })];
            }
            case "data": {
              const data = Buffer.alloc(length, error);
              const head = Buffer.alloc(dataChunkHeadBytes);
              writeDataChunkHead(head, sent, sent);
              expected.push({ type: "data", offset, data: data.toString("hex") }, ...done);
              return [head, data];
            }
          }
        }),
      );
      const seen: Event[] = [];
      const targets: { index: number; offset: number; target: Buffer }[] = [];
      const sink: ReplySink = {
        simpleReply: (_high, _low, error) => {
          seen.push({ type: "simple", error });
          return undefined;
        },
        dataChunk: (_high, _low, offset, length) => {
          const target = Buffer.alloc(length);
          targets.push({ index: seen.length, offset, target });
          seen.push({ type: "data", offset, data: "" });
          return target;
        },
        chunk: (_high, _low, chunk) => seen.push(chunk),
        done: () => seen.push({ type: "done" }),
      };
      const parser = new ReplyParser(sink);
      for (const piece of pieces(stream, cuts)) parser.feed(piece);
      for (const { index, offset, target } of targets)
        seen[index] = { type: "data", offset, data: target.toString("hex") };
      assert.deepEqual(seen, expected);
    }),
  );
});
