import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { CaptureStatus, DiskHost } from "#cloud/disk-host.ts";
import { OperationalError } from "#kernel/errors.ts";
import { silentLog } from "#kernel/log.ts";
import { connectUnix } from "#wire/local-api/unix-socket.ts";
import { startHostApi } from "./host-api-server.ts";
import { openHostClient } from "./host-client.ts";

const capture: CaptureStatus = {
  volumeId: "vol-1",
  uri: "nbd+unix:///v?socket=/s",
  state: "synchronising",
  reason: "first_copy",
  copiedBytes: 1,
  totalBytes: 2,
  since: 3,
};

/** Every call is written down with its arguments; `answer` may throw. */
function recordingHost(calls: unknown[][], answer: (name: string, signal: AbortSignal) => unknown): DiskHost {
  return new Proxy({} as DiskHost, {
    get:
      (_, name) =>
      async (...given: unknown[]) => {
        calls.push([name, ...given.slice(0, -1)]);
        return answer(String(name), given.at(-1) as AbortSignal);
      },
  });
}

async function served(
  answer: (name: string, signal: AbortSignal) => unknown,
  use: (client: DiskHost, calls: unknown[][], path: string) => Promise<void>,
): Promise<void> {
  // Longer than a Unix socket's name may be.
  const folder = mkdtempSync(join(tmpdir(), `host-api-${"x".repeat(100)}`));
  const calls: unknown[][] = [];
  const path = join(folder, "host.sock");
  const server = await startHostApi(recordingHost(calls, answer), path, silentLog);
  try {
    await use(openHostClient({ socketPath: path }), calls, path);
  } finally {
    await server[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  }
}

const { signal } = new AbortController();

void test("every call arrives with its arguments, and its answer comes back", async () => {
  const seed = { volumeId: "vol-1", uri: "nbd://h/e", state: "copying", copiedBytes: 0, totalBytes: 9 };
  const answers: Record<string, unknown> = {
    startCapture: capture,
    captures: [capture],
    seed,
    seeds: [seed],
    exportVolume: { uri: "nbd+unix:///e?socket=/e" },
    agentAnswers: true,
    freeze: { fileSystems: 2 },
    thaw: { held: true },
    exec: { exitCode: 3, output: "no" },
    console: "hello",
    screenshot: Buffer.from("png"),
  };
  await served(
    (name) => answers[name],
    async (client, calls, path) => {
      const wanted = { volumeId: "vol-1", uri: capture.uri, stallLimitMs: 500 };
      assert.deepEqual(await client.startCapture(wanted, signal), capture);
      assert.deepEqual(await client.captures(signal), [capture]);
      await client.stopCapture("vol-1", signal);
      const from = { volumeId: "vol-1", uri: "nbd://h/e", bytesPerSecond: 7, replace: "restore-1" };
      assert.deepEqual(await client.seed(from, signal), seed);
      assert.deepEqual(await client.seeds(signal), [seed]);
      assert.deepEqual(await client.exportVolume("vol-1", signal), answers["exportVolume"]);
      await client.endExport("vol-1", signal);
      assert.equal(await client.agentAnswers("i-1", signal), true);
      assert.deepEqual(await client.freeze("i-1", 900, signal), { fileSystems: 2 });
      assert.deepEqual(await client.thaw("i-1", signal), { held: true });
      const program = { path: "/bin/test", args: ["-e", "/x"], limitMs: 1000 };
      assert.deepEqual(await client.exec("i-1", program, signal), answers["exec"]);
      assert.equal(await client.console("i-1", signal), "hello");
      assert.deepEqual(await client.screenshot("i-1", signal), Buffer.from("png"));
      assert.deepEqual(calls, [
        ["startCapture", wanted],
        ["captures"],
        ["stopCapture", "vol-1"],
        ["seed", from],
        ["seeds"],
        ["exportVolume", "vol-1"],
        ["endExport", "vol-1"],
        ["agentAnswers", "i-1"],
        ["freeze", "i-1", 900],
        ["thaw", "i-1"],
        ["exec", "i-1", program],
        ["console", "i-1"],
        ["screenshot", "i-1"],
      ]);
      assert.equal(statSync(path).mode & 0o777, 0o600);
    },
  );
});

void test("an error is thrown as the host threw it; a bug is not told in its own words", async () => {
  const thrown = new OperationalError("machine.refused", "it was written to", {
    outcome: "applied",
    retry: "later",
    detail: "more",
    remoteCode: "GenericError",
    retryAfterMs: 12,
  });
  const errors: Error[] = [thrown, new TypeError("secret")];
  await served(
    () => {
      throw errors.shift() ?? new Error("too many calls");
    },
    async (client) => {
      await assert.rejects(client.captures(signal), (error: OperationalError) => {
        assert.ok(error instanceof OperationalError);
        const { code, message, outcome, retry, detail, remoteCode, retryAfterMs } = error;
        const seen = { code, message, outcome, retry, detail, remoteCode, retryAfterMs };
        const { cause: _, stack: __, name: ___, ...was } = Object.assign({ message: thrown.message }, thrown);
        assert.deepEqual(seen, was);
        return true;
      });
      await assert.rejects(client.captures(signal), (error: OperationalError) => {
        assert.equal(error.code, "internal");
        assert.doesNotMatch(error.message, /secret/);
        return true;
      });
    },
  );
});

void test("a caller that gives up ends the call at the host", { timeout: 10_000 }, async () => {
  const ended = Promise.withResolvers<string>();
  await served(
    (_, given) => {
      given.addEventListener("abort", () => ended.resolve("aborted"));
      begun.resolve();
      return new Promise(() => {});
    },
    async (client) => {
      const over = new AbortController();
      const call = client.thaw("i-1", over.signal);
      await begun.promise;
      over.abort(new OperationalError("aborted", "enough"));
      await assert.rejects(call, /enough/);
      assert.equal(await ended.promise, "aborted");
    },
  );
});
const begun = Promise.withResolvers<void>();

void test("what is not a call is refused, and nothing of it reaches the host", async () => {
  await served(
    () => null,
    async (_, calls, path) => {
      const send = async (method: string, target: string, body: string): Promise<number> => {
        const socket = await connectUnix(path, "machine.failing");
        return new Promise<number>((resolve, reject) => {
          const request = http.request({ method, path: target, createConnection: () => socket });
          request.once("error", reject);
          request.once("response", (response) => {
            response.resume().once("end", () => resolve(response.statusCode ?? 0));
          });
          request.end(body);
        });
      };
      assert.equal(await send("GET", "/captures", ""), 404);
      assert.equal(await send("POST", "/toString", "{}"), 404);
      assert.equal(await send("POST", "/captures", "{"), 400);
      assert.equal(await send("POST", "/captures", '{"more":1}'), 400);
      assert.equal(await send("POST", "/stopCapture", '{"volumeId":"../x"}'), 400);
      assert.equal(await send("POST", "/captures", "x".repeat(1_100_000)), 413);
      assert.deepEqual(calls, []);
    },
  );
});

void test("no agent: the failure says so, and nothing was applied", async () => {
  const client = openHostClient({ socketPath: join(tmpdir(), "no-such-host.sock") });
  await assert.rejects(client.captures(signal), (error: OperationalError) => {
    assert.equal(error.code, "machine.failing");
    assert.equal(error.outcome, "not_applied");
    assert.equal(error.retry, "later");
    return true;
  });
});
