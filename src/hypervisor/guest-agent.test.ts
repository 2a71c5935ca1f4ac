import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { GuestAgent } from "./guest-agent.ts";
import type { MachineView } from "./machine-view.ts";
import { machineFiles } from "./plan-command-line.ts";

/** The agent of a machine whose port is served by `serve`. */
async function agentBehind(t: TestContext, serve: (socket: Socket) => void): Promise<GuestAgent> {
  const folder = mkdtempSync(join(tmpdir(), "understudy-agent-"));
  const server = createServer((socket) => {
    socket.on("error", () => {});
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(join(folder, machineFiles.agentSocket), resolve));
  t.after(() => {
    server.close();
    rmSync(folder, { recursive: true });
  });
  const deps = { clock: systemClock, random: systemRandom, log: silentLog };
  return new GuestAgent({ id: "web", folder, isOn: true, deps } as unknown as MachineView);
}

test("a QEMU that ends while a question to its guest is unread is an error of that question alone", async (t) => {
  // As QEMU does that is killed: what the guest has not read is thrown away, and the kernel resets the connection.
  const agent = await agentBehind(t, (socket) => {
    let seen = 0;
    socket.on("data", (bytes) => {
      seen += bytes.length;
      if (seen > 1000) socket.destroy();
    });
  });
  const question = agent.ask("guest-exec", { path: "/bin/true", "input-data": "x".repeat(4 * 1024 * 1024) });
  await assert.rejects(question, { code: "machine.failing" });
});

test("an answer to an earlier question is not taken for this one's", async (t) => {
  const agent = await agentBehind(t, (socket) => {
    socket.write('{"return": "stale"}\n');
    let text = "";
    socket.on("data", (bytes) => {
      text += bytes.toString("latin1").replace("\xff", "");
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        const { execute, arguments: given } = JSON.parse(text.slice(0, end)) as {
          execute: string;
          arguments?: { id: number };
        };
        text = text.slice(end + 1);
        const answer = execute === "guest-sync-delimited" ? given?.id : "fresh";
        socket.write(`${JSON.stringify({ return: answer })}\n`);
      }
    });
  });
  assert.equal(await agent.ask("guest-fsfreeze-status"), "fresh");
});
