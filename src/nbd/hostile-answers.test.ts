// Servers that mean ill: what they send costs the client neither memory nor time without end.
import assert from "node:assert/strict";
import { Duplex } from "node:stream";
import { test } from "node:test";
import { encodeGreeting, encodeInfo, encodeOptionReply } from "#wire/nbd/handshake.ts";
import { nbdCommand, nbdOption, optionReply } from "#wire/nbd/protocol.ts";
import { dataChunkHeadBytes, writeDataChunkHead } from "#wire/nbd/transmission.ts";
import { ClientConnection } from "./client-connection.ts";
import { listAsClient, negotiateAsClient } from "./client-handshake.ts";
import { scriptedStream } from "./scripted-stream.fixture.ts";

const never = new AbortController().signal;
const mib = 1024 * 1024;

/** `first`, then the same again and again, up to `limitBytes`. */
function chattering(first: Buffer, again: Buffer, limitBytes: number) {
  const sent = { bytes: 0 };
  const stream = new Duplex({
    read() {
      const piece = sent.bytes === 0 ? first : again;
      sent.bytes += piece.length;
      this.push(sent.bytes > limitBytes ? null : piece);
    },
    write(_chunk, _encoding, done) {
      done();
    },
  });
  return { stream, sent };
}

test("a server that does not stop answering is left before it fills the memory", async () => {
  const options = { exportName: "disk", contexts: ["base:allocation"] };
  const reply = (option: number): Buffer =>
    encodeOptionReply(option, optionReply.info, Buffer.alloc(65_536 - 20));
  const agreed = encodeOptionReply(nbdOption.structuredReply, optionReply.ack);
  const cases: [string, Buffer, Buffer, number][] = [
    ["structured replies", Buffer.alloc(0), reply(nbdOption.structuredReply), 2 * mib],
    ["contexts", agreed, reply(nbdOption.setMetaContext), 2 * mib],
  ];
  for (const [what, before, again, most] of cases) {
    const { stream, sent } = chattering(Buffer.concat([encodeGreeting(3), before]), again, 64 * mib);
    await assert.rejects(negotiateAsClient(stream, options, never), { code: "nbd.protocol" }, what);
    assert.ok(sent.bytes < most, `${what}: ${sent.bytes} bytes`);
  }
  const { stream, sent } = chattering(encodeGreeting(3), reply(nbdOption.list), 64 * mib);
  await assert.rejects(listAsClient(stream, {}, never), { code: "nbd.protocol" });
  assert.ok(sent.bytes < 18 * mib, `list: ${sent.bytes} bytes`);
});

test("a read's data in pieces without number ends the connection, not the process's time", async () => {
  const length = 4 * mib;
  const answers = [
    encodeGreeting(3),
    encodeOptionReply(nbdOption.structuredReply, optionReply.ack),
    encodeOptionReply(
      nbdOption.go,
      optionReply.info,
      encodeInfo({ type: "export", sizeBytes: length, flags: 0 }),
    ),
    encodeOptionReply(nbdOption.go, optionReply.ack),
  ];
  // Every other byte, from the end: none touches the one before.
  const pieces: Buffer[] = [];
  for (let offset = length - 2; offset > length - 40_000; offset -= 2) {
    const piece = Buffer.alloc(dataChunkHeadBytes + 1);
    writeDataChunkHead(piece, { cookieHigh: 0, cookieLow: 1 }, { offset, length: 1, done: false });
    pieces.push(piece);
  }
  const { stream } = scriptedStream([Buffer.concat([...answers, ...pieces])]);
  const negotiated = await negotiateAsClient(stream, { exportName: "disk", contexts: [] }, never);
  const lost = Promise.withResolvers<Error>();
  const connection = new ClientConnection(negotiated, {
    lost: (_connection, _operations, reason) => lost.resolve(reason),
    settled: () => {},
    draining: () => {},
  });
  connection.send({
    command: nbdCommand.read,
    flags: 0,
    offset: 0,
    length,
    target: Buffer.alloc(length),
    resolve: () => {},
    reject: () => {},
    isAbandoned: () => false,
  });
  assert.match((await lost.promise).message, /pieces/);
});
