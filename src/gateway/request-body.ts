/** Reading a request, bounded in size and, over all requests at once, in memory. */
import type { IncomingMessage } from "node:http";
import type { RequestHead, RequestHeaders } from "./dialect.ts";
import type { StatsRecorder } from "./gateway-stats.ts";

export type BodyRead =
  | { readonly ok: true; readonly body: Buffer; release(): void }
  | { readonly ok: false; readonly why: "too_large" | "overloaded" | "gone" };

const empty = Buffer.alloc(0);
const nothing = (): void => {};

export function requestHead(request: IncomingMessage): RequestHead {
  return {
    method: request.method ?? "GET",
    target: request.url ?? "/",
    headers: headersOf(request.rawHeaders),
  };
}

function headersOf(raw: readonly string[]): RequestHeaders {
  const headers: Record<string, string | string[] | undefined> = Object.create(null);
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = (raw[at] ?? "").toLowerCase();
    const value = raw[at + 1] ?? "";
    const known = headers[name];
    if (known === undefined) headers[name] = value;
    else if (typeof known === "string") headers[name] = [known, value];
    else known.push(value);
  }
  return headers;
}

/** The size that a request's head announces; undefined if it does not (chunked). Node has refused heads that contradict themselves. */
export function announcedBytes(head: RequestHead): number | undefined {
  if (head.headers["transfer-encoding"] !== undefined) return undefined;
  const length = head.headers["content-length"];
  return typeof length === "string" ? Number(length) : 0;
}

/** The body whole, or why not. What is held is counted in `stats.bufferedBodyBytes` until `release`. */
export function readBody(
  request: IncomingMessage,
  head: RequestHead,
  maxBytes: number,
  budgetBytes: number,
  stats: StatsRecorder,
): BodyRead | Promise<BodyRead> {
  const announced = announcedBytes(head);
  if (announced === 0) return { ok: true, body: empty, release: nothing };
  if (announced !== undefined && announced > maxBytes) return { ok: false, why: "too_large" };
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const finish = (read: BodyRead): void => {
      request.off("data", take).off("end", end).off("close", close).off("error", nothing);
      if (!read.ok) stats.bufferedBodyBytes -= size;
      resolve(read);
    };
    const take = (chunk: Buffer): void => {
      size += chunk.length;
      stats.bufferedBodyBytes += chunk.length;
      if (size > maxBytes) finish({ ok: false, why: "too_large" });
      else if (stats.bufferedBodyBytes > budgetBytes) finish({ ok: false, why: "overloaded" });
      else chunks.push(chunk);
    };
    const end = (): void => {
      const [only] = chunks;
      const body = chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks, size);
      finish({
        ok: true,
        body,
        release: () => {
          stats.bufferedBodyBytes -= size;
        },
      });
    };
    const close = (): void => finish({ ok: false, why: "gone" });
    request.on("data", take).on("end", end).on("close", close).on("error", nothing);
  });
}
