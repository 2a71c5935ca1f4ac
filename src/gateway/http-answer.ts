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

export function sinkOf(response: ServerResponse): AnswerSink {
  return {
    start(status, headers) {
      response.sendDate = !hasHeader(headers, "date");
      response.writeHead(status, headers as string[]);
    },
    write: (chunk) => response.write(chunk),
    end: () => void response.end(),
    onDrain: (resume) => void response.on("drain", resume),
    onGone(abort) {
      if (response.destroyed) abort();
      else response.on("close", () => (response.writableFinished ? undefined : abort()));
    },
  };
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
