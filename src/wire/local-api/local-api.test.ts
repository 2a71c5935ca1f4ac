import assert from "node:assert/strict";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { z } from "zod";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import { silentLog } from "#kernel/log.ts";
import { type LocalHandlers, maxLocalBodyBytes } from "./local-api.ts";
import { LocalApiClient } from "./local-api-client.ts";
import { serveLocalApi } from "./local-api-server.ts";

const methods = {
  double: { input: z.strictObject({ of: z.number() }), output: z.strictObject({ is: z.number() }) },
  refuse: { input: z.strictObject({}), output: z.null() },
  crash: { input: z.strictObject({}), output: z.null() },
  wait: { input: z.strictObject({}), output: z.null() },
};

async function withApi(
  more: Partial<LocalHandlers<typeof methods>>,
  work: (client: LocalApiClient<typeof methods>, socketPath: string) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "understudy-local-"));
  const socketPath = join(folder, "a.sock");
  const handlers: LocalHandlers<typeof methods> = {
    double: async ({ of }) => ({ is: 2 * of }),
    refuse: async () => {
      throw new OperationalError("state.fenced", "not under this epoch", {
        outcome: "applied",
        retry: "later",
      });
    },
    crash: async () => {
      throw new Error("a secret of the inside");
    },
    wait: (_, signal) =>
      new Promise((_resolve, reject) =>
        signal.addEventListener("abort", () => reject(signal.reason as Error)),
      ),
    ...more,
  };
  await using _server = await serveLocalApi({ socketPath, methods, handlers, log: silentLog });
  await using client = new LocalApiClient({
    place: { socketPath },
    methods,
    peer: "the other one",
    unreachable: "api.unreachable",
  });
  await work(client, socketPath);
  await rm(folder, { recursive: true, force: true });
}

const signal = new AbortController().signal;

test("a call crosses with its types, and nobody else may open the socket", () =>
  withApi({}, async (client, socketPath) => {
    assert.deepEqual(await client.call("double", { of: 21 }, signal), { is: 42 });
    assert.equal((await stat(socketPath)).mode & 0o777, 0o600);
  }));

test("an error crosses as what it is, and an unexpected one tells nothing of the inside", () =>
  withApi({}, async (client) => {
    await assert.rejects(
      client.call("refuse", {}, signal),
      (error) =>
        isOperational(error, "state.fenced") &&
        error.outcome === "applied" &&
        error.retry === "later" &&
        error.message === "not under this epoch",
    );
    await assert.rejects(
      client.call("crash", {}, signal),
      (error) => isOperational(error, "internal") && !error.message.includes("secret"),
    );
  }));

test("what is not understood is refused and named", () =>
  withApi({}, async (client, socketPath) => {
    await assert.rejects(
      client.call("double", { of: "many" as unknown as number }, signal),
      (error) => isOperational(error, "input.invalid") && error.message.includes("of"),
    );
    assert.deepEqual(await raw(socketPath, "/constructor", "{}"), [404, "not_found"]);
    assert.deepEqual(await raw(socketPath, "/double", "{"), [400, "input.invalid"]);
    assert.deepEqual(await raw(socketPath, "/double", "x".repeat(maxLocalBodyBytes + 1)), [
      413,
      "input.too_large",
    ]);
  }));

async function raw(socketPath: string, path: string, body: string): Promise<[number, string]> {
  return new Promise((resolve, reject) => {
    const call = httpRequest({ socketPath, path, method: "POST" }, (response) => {
      let text = "";
      response.on("data", (chunk: Buffer) => (text += chunk.toString()));
      response.on("end", () =>
        resolve([response.statusCode ?? 0, (JSON.parse(text) as { error: { code: string } }).error.code]),
      );
    });
    call.on("error", reject);
    call.end(body);
  });
}

test("a caller that goes away is noticed", async () => {
  const begun = Promise.withResolvers<void>();
  const { promise, resolve } = Promise.withResolvers<void>();
  await withApi(
    {
      wait: (_, gone) =>
        new Promise((_resolve, reject) => {
          begun.resolve();
          gone.addEventListener("abort", () => {
            resolve();
            reject(gone.reason as Error);
          });
        }),
    },
    async (client) => {
      const leave = new AbortController();
      const call = client.call("wait", {}, leave.signal);
      await begun.promise;
      leave.abort(new Error("left"));
      await assert.rejects(call, /left/u);
      await promise;
    },
  );
});

test("a socket that is served is not taken over; one that a dead process left is", async () => {
  await withApi({}, async (_client, socketPath) => {
    const again = serveLocalApi({
      socketPath,
      methods: {},
      handlers: {},
      log: silentLog,
    });
    await assert.rejects(again, (error) => isOperational(error, "state.conflict"));
  });
});

test("nobody there", async () => {
  await using client = new LocalApiClient({
    place: { socketPath: "/nonexistent/a.sock" },
    methods,
    peer: "the vault",
    unreachable: "api.unreachable",
  });
  await assert.rejects(
    client.call("double", { of: 1 }, signal),
    (error) => isOperational(error, "api.unreachable") && error.message.includes("the vault"),
  );
});
