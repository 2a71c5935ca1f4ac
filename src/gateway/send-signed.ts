/** From a request to its answer: signed, sent, and sent once more where the credentials had outlived themselves. */
import { OperationalError } from "#kernel/errors.ts";
import type { Dialect, OutgoingRequest, SignedRequest, UpstreamName, UpstreamService } from "./dialect.ts";
import type { AnswerSink, Exchange, StreamEnd, UpstreamConnections } from "./upstream.ts";

export interface Sending {
  readonly dialect: Dialect;
  readonly name: UpstreamName;
  readonly request: OutgoingRequest;
  readonly service: UpstreamService;
  readonly connections: UpstreamConnections;
}

/** Rejects for bugs alone: what cannot be signed now was not sent. */
export async function exchangeSigned(
  sending: Sending,
  maxBytes: number,
  signal?: AbortSignal,
): Promise<Exchange> {
  for (let again = false; ; again = true) {
    const signed = await sign(sending);
    if (signed instanceof OperationalError) return { ok: false, sent: false, error: signed };
    const exchange = await sending.connections.exchange(signed, maxBytes, signal);
    if (again || !exchange.ok || !outlived(sending, exchange.answer.status, signed)) return exchange;
  }
}

export async function streamSigned(sending: Sending, sink: AnswerSink): Promise<StreamEnd> {
  const signed = await sign(sending);
  if (signed instanceof OperationalError) return { ok: false, sent: false, started: false, error: signed };
  if (sending.dialect.outlived === undefined) return sending.connections.stream(signed, sink);
  let dropped = false;
  const first = await sending.connections.stream(signed, {
    ...sink,
    start(status, headers) {
      dropped = outlived(sending, status, signed);
      if (!dropped) sink.start(status, headers);
    },
    write: (chunk) => dropped || sink.write(chunk),
    end: () => (dropped ? undefined : sink.end()),
  });
  if (!dropped) return first;
  const renewed = await sign(sending);
  if (renewed instanceof OperationalError) return { ok: false, sent: true, started: false, error: renewed };
  return sending.connections.stream(renewed, sink);
}

async function sign({ dialect, name, request, service }: Sending): Promise<SignedRequest | OperationalError> {
  try {
    return await dialect.sign(name, request, service);
  } catch (error) {
    if (error instanceof OperationalError) return error;
    throw error;
  }
}

function outlived({ dialect, service }: Sending, status: number, signed: SignedRequest): boolean {
  return dialect.outlived?.(status, signed, service) === true;
}
