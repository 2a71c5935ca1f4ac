import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { machineFiles } from "./plan-command-line.ts";
import { adoptQemu } from "./qemu-process.ts";

const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n';

test("a monitor that was tried and refused is let go of: QEMU serves one at a time", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "understudy-adopt-"));
  const uuid = "11111111-2222-3333-4444-555555555555";
  // A process with the machine's uuid among its arguments, which is how it is known.
  const child = spawn("/bin/sh", ["-c", "read line", "sh", uuid], { stdio: ["pipe", "ignore", "ignore"] });
  await once(child, "spawn");
  writeFileSync(join(folder, machineFiles.pid), `${child.pid}\n`);
  const left = Promise.withResolvers<void>();
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.on("close", () => left.resolve());
    socket.write(GREETING);
    let text = "";
    socket.on("data", (bytes) => {
      text += bytes.toString();
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        const { execute, id } = JSON.parse(text.slice(0, end)) as { execute: string; id: string };
        text = text.slice(end + 1);
        const error = { class: "GenericError", desc: "not now" };
        const answer = execute === "query-uuid" ? { error } : { return: {} };
        socket.write(`${JSON.stringify({ ...answer, id })}\r\n`);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(join(folder, machineFiles.qmpSocket), resolve));
  t.after(() => {
    server.close();
    child.kill("SIGKILL");
    rmSync(folder, { recursive: true });
  });
  await assert.rejects(adoptQemu(folder, uuid), { code: "machine.refused" });
  await left.promise;
});
