import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { test } from "node:test";
import { connectQmp } from "./qmp-client.ts";

const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}\r\n';

/** A monitor that answers as told. */
async function monitor(
  path: string,
  answer: (request: { execute?: string; "exec-oob"?: string; id: string }, socket: Socket) => void,
): Promise<Server> {
  const server = createServer((socket) => {
    socket.write(GREETING);
    let text = "";
    socket.on("data", (bytes: Buffer) => {
      text += bytes.toString();
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        answer(JSON.parse(text.slice(0, end)) as { id: string }, socket);
        text = text.slice(end + 1);
      }
    });
    socket.on("error", () => {});
  });
  // Bound by its short name: the long one is what the client has to cope with.
  const before = process.cwd();
  process.chdir(dirname(path));
  await new Promise<void>((resolve) => server.listen(basename(path), resolve));
  process.chdir(before);
  return server;
}

test("answers, refusals, events and the end of a connection, over a path longer than a socket's may be", async () => {
  const folder = join(mkdtempSync(join(tmpdir(), "qmp-")), "x".repeat(120));
  mkdirSync(folder);
  const path = join(folder, "qmp.sock");
  const server = await monitor(path, ({ execute, id, ...rest }, socket) => {
    const reply = (value: object): void => void socket.write(`${JSON.stringify({ ...value, id })}\r\n`);
    if (execute === "qmp_capabilities" || rest["exec-oob"] === "yank") reply({ return: {} });
    else if (execute === "bad") reply({ error: { class: "DeviceNotFound", desc: "no such device" } });
    else if (execute === "event") {
      socket.write('{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}\r\n');
      reply({ return: 7 });
    } else if (execute === "die") socket.destroy();
    else if (execute === "rubbish") socket.write("this is no QMP\r\n");
  });
  try {
    const client = await connectQmp(path);
    assert.equal((await client.greeting()).version.minor, 2);
    await client.yank(["node"]);
    await assert.rejects(client.execute("bad"), { code: "machine.refused", remoteCode: "DeviceNotFound" });
    const events = client.events();
    assert.equal(await client.execute("event"), 7);
    assert.equal((await events.next()).value?.name, "STOP");

    // An abort ends the waiting; later answers still find their commands.
    const over = new AbortController();
    const waiting = client.execute("never", undefined, over.signal);
    over.abort(new Error("enough"));
    await assert.rejects(waiting, /enough/);
    assert.equal(await client.execute("event"), 7);

    await assert.rejects(client.execute("die"), { code: "machine.failing", outcome: "unknown" });
    await client.closed;
    await assert.rejects(client.execute("event"), { code: "machine.failing", outcome: "not_applied" });
    // The event that was there is still told; then the end.
    assert.equal((await events.next()).value?.name, "STOP");
    assert.equal((await events.next()).done, true);

    // Whose answer it was cannot be told: nobody waits for ever.
    const second = await connectQmp(path);
    await assert.rejects(second.execute("rubbish"), { code: "machine.failing", outcome: "unknown" });
  } finally {
    server.close();
    rmSync(dirname(folder), { recursive: true });
  }
});

test("nobody listens: said at once", async () => {
  await assert.rejects(connectQmp(join(tmpdir(), "no-such-monitor.sock")), { code: "machine.failing" });
});
