/** Answers on their way out. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Answer, FlatHeaders } from "./dialect.ts";
import type { AnswerSink } from "./upstream.ts";

/** How much of a refused request is still read and thrown away, so that its sender gets to see the answer. */
const lingerBytes = 16 * 1024 * 1024;

const lingerMs = 5_000;
const smallBytes = 65_536;

/** Headers go out as they are; a missing length is added, since the body is whole. */
export function sendAnswer(response: ServerResponse, answer: Answer): void {
  if (response.destroyed || response.headersSent) return;
  response.sendDate = !hasHeader(answer.headers, "date");
  response.writeHead(answer.status, withLength(answer) as string[]);
  const { body } = answer;
  // As text of one byte a character, a small body leaves in one write with the head; as a buffer it needs a gathered one.
  if (typeof body !== "string" && body.length < smallBytes) response.end(body.toString("latin1"), "latin1");
  else response.end(body);
}

/**
 * Answers a request that has not arrived whole, and closes. A socket that is closed with unread input is reset, and a
 * reset can overtake the answer: so the rest is read, up to a bound, before the end.
 */
export function sendAndClose(request: IncomingMessage, response: ServerResponse, answer: Answer): void {
  if (response.destroyed || response.headersSent) return;
  response.writeHead(answer.status, [...withLength(answer), "connection", "close"]);
  if (request.complete) {
    response.end(answer.body);
    return;
  }
  response.write(answer.body);
  let read = 0;
  const finish = (): void => {
    clearTimeout(timer);
    request.off("data", count).off("end", finish).off("close", finish);
    response.end();
  };
  const count = (chunk: Buffer): void => {
    read += chunk.length;
    if (read > lingerBytes) {
      finish();
      request.destroy();
    }
  };
  const timer = setTimeout(() => {
    finish();
    request.destroy();
  }, lingerMs);
  request.on("data", count).on("end", finish).on("close", finish);
  request.resume();
}

/** Passes an answer on as it comes; a small one that comes in one piece leaves in one write with its head. */
export function sinkOf(response: ServerResponse): AnswerSink {
  let head: { readonly status: number; readonly headers: FlatHeaders } | undefined;
  let whole: Buffer | undefined;
  const sendHead = (): void => {
    if (head === undefined) return;
    response.sendDate = !hasHeader(head.headers, "date");
    response.writeHead(head.status, head.headers as string[]);
    head = undefined;
  };
  return {
    start(status, headers) {
      head = { status, headers };
    },
    write(chunk) {
      if (head !== undefined && chunk.length < smallBytes && announces(head.headers, chunk.length)) {
        whole = chunk;
        return true;
      }
      sendHead();
      return response.write(chunk);
    },
    end() {
      sendHead();
      if (whole === undefined) response.end();
      else response.end(whole.toString("latin1"), "latin1");
    },
    onDrain: (resume) => void response.on("drain", resume),
    onGone(abort) {
      if (response.destroyed) abort();
      else response.on("close", () => (response.writableFinished ? undefined : abort()));
    },
  };
}

function announces(headers: FlatHeaders, length: number): boolean {
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const name = headers[at];
    if (name?.length === 14 && name.toLowerCase() === "content-length")
      return Number(headers[at + 1]) === length;
  }
  return false;
}

export function hasHeader(headers: FlatHeaders, name: string): boolean {
  for (let at = 0; at < headers.length; at += 2) {
    const candidate = headers[at];
    if (candidate?.length === name.length && candidate.toLowerCase() === name) return true;
  }
  return false;
}

function withLength(answer: Answer): FlatHeaders {
  return hasHeader(answer.headers, "content-length")
    ? answer.headers
    : [...answer.headers, "content-length", String(Buffer.byteLength(answer.body))];
}
