/** One look at one thing. A probe needs no credentials: that the other side answers at all is the question. */
import { connect } from "node:net";
import { request } from "undici";
import type { NoticeCode } from "#model/notice.ts";
import { connectUnix } from "#wire/local-api/unix-socket.ts";

export type ProbeCheck =
  | { readonly type: "http"; readonly url: string; readonly status: number; readonly contains?: string }
  | { readonly type: "tcp"; readonly host: string; readonly port: number }
  /**
   * A cloud's API endpoint: any answer below 500 shows that it is alive, a refusal of our missing credentials too. `unix:PATH`, a
   * bare host's, or `tcp://HOST:PORT` of one on another machine: that somebody listens.
   */
  | { readonly type: "cloud_api"; readonly url: string };

export interface Probe {
  readonly name: string;
  readonly everyMs: number;
  readonly timeoutMs: number;
  readonly check: ProbeCheck;
}

export type ProbeResult =
  | { readonly ok: true }
  | { readonly ok: false; readonly code: NoticeCode; readonly detail: string };

const MAX_BODY_BYTES = 64 * 1024;

/** Never throws for what it looks at; rejects only with the signal's reason. */
export async function runProbe(probe: Probe, signal: AbortSignal): Promise<ProbeResult> {
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(probe.timeoutMs)]);
  try {
    switch (probe.check.type) {
      case "http":
        return await lookHttp(probe.check, deadline);
      case "tcp":
        await lookTcp(probe.check.host, probe.check.port, deadline);
        return { ok: true };
      case "cloud_api":
        return await lookCloudApi(probe.check.url, deadline);
    }
  } catch (error) {
    signal.throwIfAborted();
    const code = probe.check.type === "cloud_api" ? "cloud.api_unreachable" : "application.unresponsive";
    return { ok: false, code, detail: describe(error, probe.timeoutMs) };
  }
}

/** Every code that this kind of probe can raise; a passing probe clears them all. */
export function codesOf(check: ProbeCheck): readonly NoticeCode[] {
  return check.type === "cloud_api"
    ? ["cloud.api_unreachable", "cloud.api_failing"]
    : ["application.unresponsive", "application.failing"];
}

async function lookHttp(check: ProbeCheck & { type: "http" }, signal: AbortSignal): Promise<ProbeResult> {
  // A connection of its own each time: a kept one says nothing about whether new users get in.
  const { statusCode, body } = await request(check.url, {
    signal,
    reset: true,
    headers: { "user-agent": "understudy-probe" },
  });
  const text = await readBounded(body);
  if (statusCode !== check.status) {
    return {
      ok: false,
      code: "application.failing",
      detail: `answered ${statusCode}, expected ${check.status}`,
    };
  }
  if (check.contains !== undefined && !text.includes(check.contains)) {
    return {
      ok: false,
      code: "application.failing",
      detail: `the answer does not contain "${check.contains}"`,
    };
  }
  return { ok: true };
}

async function lookCloudApi(url: string, signal: AbortSignal): Promise<ProbeResult> {
  if (url.startsWith("unix:")) {
    (await connectUnix(url.slice("unix:".length), "cloud.unreachable", signal)).destroy();
    return { ok: true };
  }
  if (url.startsWith("tcp:")) {
    const { hostname, port } = new URL(url);
    await lookTcp(hostname.replace(/^\[(.*)\]$/u, "$1"), Number(port), signal);
    return { ok: true };
  }
  const { statusCode, body } = await request(url, {
    signal,
    reset: true,
    headers: { "user-agent": "understudy-probe" },
  });
  await readBounded(body);
  return statusCode < 500
    ? { ok: true }
    : { ok: false, code: "cloud.api_failing", detail: `answered ${statusCode}` };
}

async function readBounded(body: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    chunks.push(chunk);
    if (size > MAX_BODY_BYTES) break;
  }
  return Buffer.concat(chunks).subarray(0, MAX_BODY_BYTES).toString("utf8");
}

function lookTcp(host: string, port: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, signal });
    socket.once("connect", () => {
      socket.destroy();
      resolve();
    });
    socket.once("error", reject);
  });
}

function describe(error: unknown, timeoutMs: number): string {
  if (!(error instanceof Error)) return "failed";
  if (error.name === "TimeoutError" || error.name === "AbortError") return `no answer within ${timeoutMs} ms`;
  const code = "code" in error && typeof error.code === "string" ? error.code : error.name;
  return `${code}: ${error.message}`.slice(0, 200);
}
