/** One request, from its head to its answer. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { EnvironmentId } from "#kernel/ids.ts";
import { type ChangePorts, type Presence, runChange } from "./change-path.ts";
import type { Caller, Classified, Dialect, GatewayRequest, Problem, RequestHead } from "./dialect.ts";
import { editingSink } from "./edit-answer.ts";
import type { EnvironmentLane } from "./environment-lane.ts";
import { sendAndClose, sendAnswer, sinkOf } from "./http-answer.ts";
import { readBody, requestHead } from "./request-body.ts";
import { streamSigned } from "./send-signed.ts";

export interface FrontPorts extends ChangePorts {
  readonly dialects: readonly Dialect[];
  readonly lanes: ReadonlyMap<EnvironmentId, EnvironmentLane>;
}

interface Visit {
  readonly ports: FrontPorts;
  readonly dialect: Dialect;
  readonly head: RequestHead;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

/** Never rejects: whatever goes wrong is an answer to this one caller and a line in the log. */
export async function serveRequest(
  ports: FrontPorts,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { stats, clock } = ports;
  const startedAt = clock.monotonicMs();
  stats.requests += 1;
  stats.inProgress += 1;
  response.once("close", () => {
    stats.inProgress -= 1;
    stats.latency(clock.monotonicMs() - startedAt);
  });
  const head = requestHead(request);
  const dialect = ports.dialects.find((candidate) => candidate.accepts(head)) ?? ports.dialects.at(-1);
  if (dialect === undefined) {
    response.writeHead(503).end();
    return;
  }
  const visit: Visit = { ports, dialect, head, request, response };
  try {
    await serve(visit);
  } catch (error) {
    ports.log.error({ error }, "a request failed inside the gateway");
    refuse(visit, { kind: "internal" });
  }
}

async function serve(visit: Visit): Promise<void> {
  const { ports, dialect, head, request, response } = visit;
  const { limits, stats } = ports;
  if (stats.inProgress > limits.requests) {
    refuse(visit, { kind: "overloaded", retryAfterSeconds: 1 });
    return;
  }
  const admitted = dialect.admit(head);
  const refusal = admitted instanceof Promise ? await admitted : admitted;
  if (refusal !== undefined) {
    stats.refusedByDialect += 1;
    sendAndClose(request, response, refusal);
    return;
  }
  if (head.headers["expect"] !== undefined) response.writeContinue();
  const reading = readBody(request, head, dialect.maxBodyBytes, limits.bufferedBodyBytes, stats);
  const read = reading instanceof Promise ? await reading : reading;
  if (!read.ok) {
    if (read.why === "too_large") refuse(visit, { kind: "too_large", limitBytes: dialect.maxBodyBytes });
    else if (read.why === "overloaded") refuse(visit, { kind: "overloaded", retryAfterSeconds: 1 });
    return;
  }
  response.once("close", () => read.release());
  await serveWhole(visit, { ...head, body: read.body });
}

async function serveWhole(visit: Visit, request: GatewayRequest): Promise<void> {
  const { ports, dialect, response } = visit;
  const proving = dialect.authenticate(request);
  const proven = proving instanceof Promise ? await proving : proving;
  if (!proven.ok) {
    ports.stats.refusedByDialect += 1;
    sendAnswer(response, proven.answer);
    return;
  }
  const { caller } = proven;
  const lane = ports.lanes.get(caller.environment);
  if (lane === undefined) {
    refuse(visit, { kind: "no_upstream", environment: caller.environment, service: dialect.name });
    return;
  }
  const classifying = proven.classify(lane.upstreams);
  const classified = classifying instanceof Promise ? await classifying : classifying;
  switch (classified.kind) {
    case "answer":
      ports.stats.refusedByDialect += 1;
      sendAnswer(response, classified.answer);
      return;
    case "read":
      await serveRead(visit, lane, classified);
      return;
    case "change":
      await serveChange(visit, lane, caller, classified);
  }
}

async function serveRead(
  visit: Visit,
  lane: EnvironmentLane,
  { service, outgoing, edit }: Classified & { kind: "read" },
): Promise<void> {
  const { ports, dialect, response } = visit;
  const upstream = lane.upstream(service);
  if (upstream === undefined) {
    const { moved } = ports.fence(lane.id);
    refuse(
      visit,
      moved === null
        ? { kind: "no_upstream", environment: lane.id, service }
        : { kind: "fenced", environment: lane.id, moved },
    );
    return;
  }
  ports.stats.reads += 1;
  const sending = { ...upstream, dialect, name: service, request: outgoing };
  const end = await streamSigned(sending, editingSink(sinkOf(response), edit));
  if (end.ok) return;
  ports.log.warn({ environment: lane.id, error: end.error }, "a read got no whole answer from the cloud");
  ports.stats.brokenReads += 1;
  // A part of the answer is out: only cutting the connection tells the caller that the rest is missing.
  if (end.started) response.destroy();
  else refuse(visit, { kind: "unreachable", environment: lane.id });
}

async function serveChange(
  visit: Visit,
  lane: EnvironmentLane,
  caller: Caller,
  { command }: Classified & { kind: "change" },
): Promise<void> {
  const { ports, dialect, response } = visit;
  if (caller.rights !== "change") {
    refuse(visit, { kind: "forbidden", operation: command.operation, principal: caller.principal });
    return;
  }
  const end = await runChange(ports, dialect, lane, caller, command, new CallerPresence(response));
  if (end.kind === "answer") sendAnswer(response, end.answer);
  else if (end.kind === "problem") refuse(visit, end.problem);
  else response.destroy();
}

/**
 * A class, not a literal with a getter: each such literal gets a hidden class of its own, which keeps what the getter sees, here the
 * request and its answer, until a full collection.
 */
class CallerPresence implements Presence {
  readonly #response: ServerResponse;

  constructor(response: ServerResponse) {
    this.#response = response;
  }

  get gone(): boolean {
    return this.#response.destroyed;
  }

  onGone(act: () => void): void {
    const response = this.#response;
    response.once("close", () => {
      if (!response.writableFinished) act();
    });
  }
}

function refuse(visit: Visit, problem: Problem): void {
  const { ports, dialect, head, request, response } = visit;
  ports.stats.problem(problem.kind);
  const answer = dialect.renderProblem(problem, head);
  if (request.complete) sendAnswer(response, answer);
  else sendAndClose(request, response, answer);
}
