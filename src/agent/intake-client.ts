/** The vault's intake, called over HTTPS. Every call may be repeated. */
import { Readable } from "node:stream";
import { Agent, request } from "undici";
import { OperationalError } from "#kernel/errors.ts";
import type { Secret } from "#kernel/secret.ts";
import {
  intakeCalls,
  type IntakeStanding,
  maxIntakeJsonBytes,
  partAnswer,
  partType,
} from "#wire/agent/intake-calls.ts";
import { decodeLeafRuns, leafBytes, type LeafRun } from "#wire/agent/leaf-runs.ts";
import type { PassVolume } from "#wire/agent/pass-part.ts";
import { decodeLocalError } from "#wire/local-api/local-api.ts";

export interface IntakeClientOptions {
  readonly url: string;
  readonly key: Secret;
  /** PEM; undefined: the machine's own CAs. */
  readonly ca: string | undefined;
}

/** Between two pieces of a body, and until an answer to what takes no time. */
const silenceMs = 30_000;
/** Until a pass is in the vault's log, or a part of a disk is hashed. */
const workMs = 30 * 60_000;

export class IntakeClient implements AsyncDisposable {
  readonly #options: IntakeClientOptions;
  readonly #agent: Agent;

  constructor(options: IntakeClientOptions) {
    this.#options = options;
    const { ca } = options;
    this.#agent = new Agent({
      connections: 2,
      connect: { timeout: 10_000, ...(ca === undefined ? {} : { ca }) },
      bodyTimeout: silenceMs,
    });
  }

  /** `after`: the stream before this one was begun under that epoch of the environment, which must not have risen. */
  async begin(
    stream: string,
    after: number | null,
    volumes: readonly PassVolume[],
    signal: AbortSignal,
  ): Promise<{ readonly epoch: number; readonly blockBytes: number }> {
    const input = { stream, after, volumes: [...volumes] };
    const answer = await this.#send("begin", jsonOf(input), silenceMs, signal);
    return understand(intakeCalls.begin.output, answer);
  }

  async standing(stream: string, signal: AbortSignal): Promise<IntakeStanding> {
    const answer = await this.#send("standing", jsonOf({ stream }), silenceMs, signal);
    return understand(intakeCalls.standing.output, answer);
  }

  async leaves(
    stream: string,
    volume: string,
    firstBlock: number,
    blocks: number,
    signal: AbortSignal,
  ): Promise<readonly LeafRun[]> {
    const body = jsonOf({ stream, volume, firstBlock, blocks });
    return decodeLeafRuns(await this.#send("leaves", body, workMs, signal), blocks);
  }

  /** `pace` is asked before each slice leaves. */
  async part(
    bytes: Buffer,
    pace: (bytes: number, signal: AbortSignal) => Promise<void>,
    signal: AbortSignal,
  ): Promise<IntakeStanding> {
    const body = {
      type: partType,
      length: bytes.length,
      content: Readable.from(sliced(bytes, pace, signal)),
    };
    return understand(partAnswer, await this.#send("part", body, workMs, signal));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }

  async #send(name: string, body: Body, answerMs: number, signal: AbortSignal): Promise<Buffer> {
    const { url, key } = this.#options;
    let status: number;
    let bytes: Buffer;
    try {
      const answer = await request(`${url.replace(/\/$/u, "")}/v1/${name}`, {
        method: "POST",
        dispatcher: this.#agent,
        headers: {
          authorization: `Bearer ${key.reveal()}`,
          "content-type": body.type,
          "content-length": String(body.length),
        },
        body: body.content,
        headersTimeout: answerMs,
        signal,
      });
      status = answer.statusCode;
      bytes = await readAnswer(answer.body);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof OperationalError) throw error;
      throw unreachable(url, error);
    }
    if (status === 200) return bytes;
    throw errorOf(url, status, bytes);
  }
}

interface Body {
  readonly type: string;
  readonly length: number;
  readonly content: Buffer | Readable;
}

function jsonOf(value: object): Body {
  const content = Buffer.from(JSON.stringify(value));
  return { type: "application/json", length: content.length, content };
}

const sliceBytes = 64 * 1024;

async function* sliced(
  bytes: Buffer,
  pace: (bytes: number, signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += sliceBytes) {
    const slice = bytes.subarray(at, at + sliceBytes);
    await pace(slice.length, signal);
    yield slice;
  }
}

/** The largest there is: hashes of as many blocks as are asked for at once. */
const maxAnswerBytes = maxIntakeJsonBytes + 65_536 * (leafBytes + 5);

async function readAnswer(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxAnswerBytes)
      throw new OperationalError("cloud.protocol", "the vault's answer is too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function understand<T>(schema: { parse(value: unknown): T }, bytes: Buffer): T {
  try {
    return schema.parse(JSON.parse(bytes.toString("utf8")));
  } catch (cause) {
    throw new OperationalError("cloud.protocol", "the vault's answer cannot be understood", { cause });
  }
}

function errorOf(url: string, status: number, bytes: Buffer): OperationalError {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8"));
  } catch {
    value = undefined;
  }
  return (
    decodeLocalError(value) ??
    new OperationalError("cloud.protocol", `${url} answers ${status}, and not as a vault's intake does`)
  );
}

/** What no repetition mends is told apart: a certificate that is not the vault's. */
function unreachable(url: string, error: unknown): OperationalError {
  const { code, message } = error as NodeJS.ErrnoException;
  const certificate = /CERT|SIGNATURE|ERR_TLS|ISSUER/u.test(code ?? "");
  if (certificate) {
    return new OperationalError(
      "auth.invalid",
      `${url} shows a certificate that is not trusted here (${code}): see vault.ca, and the name that the certificate is for`,
      { cause: error },
    );
  }
  return new OperationalError("vault.unreachable", `${url} does not answer (${code ?? message})`, {
    cause: error,
    outcome: "unknown",
  });
}
