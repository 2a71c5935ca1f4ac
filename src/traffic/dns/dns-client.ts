/** One DNS request and its answer: UDP (RFC 1035, 4.2.1) with TCP for what is large or truncated. */
import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { connect, isIP } from "node:net";
import { OperationalError } from "#kernel/errors.ts";
import {
  decodeMessage,
  type DnsMessage,
  encodeMessage,
  MAX_MESSAGE_BYTES,
  type DecodedMessage,
} from "#wire/dns/dns-message.ts";
import { DnsFormatError } from "#wire/dns/dns-name.ts";
import { signMessage, type TsigKey, verifyMessage } from "#wire/dns/tsig.ts";

export interface DnsServer {
  /** An IP address: a name would need the DNS that is being changed. */
  readonly host: string;
  readonly port: number;
}

export interface DnsExchange {
  readonly server: DnsServer;
  readonly message: Omit<DnsMessage, "id">;
  /** Signs the request, and demands a signed answer. */
  readonly key?: TsigKey;
  /** For the whole exchange, resends included. */
  readonly timeoutMs: number;
  readonly nowMs: () => number;
}

/** Without EDNS no server takes more by UDP. */
const MAX_UDP_BYTES = 512;
const UDP_RESEND_MS = 500;

/** Whether bytes answer the request: anything else that arrives is not ours, and is left aside. */
function answers(bytes: Buffer, id: number, message: DnsExchange["message"]): DecodedMessage | undefined {
  try {
    const answer = decodeMessage(bytes);
    const asked = message.questions[0];
    const echoed = answer.questions[0];
    const sameQuestion =
      echoed === undefined || (echoed.name === asked?.name.toLowerCase() && echoed.type === asked.type);
    return answer.response && answer.id === id && answer.opcode === message.opcode && sameQuestion
      ? answer
      : undefined;
  } catch (error) {
    if (error instanceof DnsFormatError) return undefined;
    throw error;
  }
}

interface Attempt {
  readonly bytes: Buffer;
  readonly accept: (bytes: Buffer) => DecodedMessage | undefined;
  readonly server: DnsServer;
  readonly deadline: AbortSignal;
}

interface Received {
  readonly bytes: Buffer;
  readonly message: DecodedMessage;
}

function overUdp({ bytes, accept, server, deadline }: Attempt): Promise<Received> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(isIP(server.host) === 6 ? "udp6" : "udp4");
    const resend = setInterval(() => socket.send(bytes), UDP_RESEND_MS);
    const finish = (act: () => void): void => {
      clearInterval(resend);
      deadline.removeEventListener("abort", onDeadline);
      socket.removeAllListeners();
      // A late error has no one left to concern.
      socket.on("error", () => undefined);
      socket.close();
      act();
    };
    const onDeadline = (): void => finish(() => reject(deadline.reason as Error));
    deadline.addEventListener("abort", onDeadline, { once: true });
    socket.on("error", (error) => finish(() => reject(error)));
    socket.on("message", (received) => {
      const message = accept(received);
      if (message !== undefined) finish(() => resolve({ bytes: received, message }));
    });
    // Connected: the kernel drops what comes from any other address.
    socket.on("connect", () => socket.send(bytes));
    socket.connect(server.port, server.host);
  });
}

function overTcp({ bytes, accept, server, deadline }: Attempt): Promise<Received> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: server.host, port: server.port });
    let read = Buffer.alloc(0);
    const finish = (act: () => void): void => {
      deadline.removeEventListener("abort", onDeadline);
      socket.destroy();
      act();
    };
    const onDeadline = (): void => finish(() => reject(deadline.reason as Error));
    deadline.addEventListener("abort", onDeadline, { once: true });
    socket.on("connect", () => {
      const length = Buffer.alloc(2);
      length.writeUInt16BE(bytes.length);
      socket.write(Buffer.concat([length, bytes]));
    });
    socket.on("data", (chunk: Buffer) => {
      read = Buffer.concat([read, chunk]);
      if (read.length > MAX_MESSAGE_BYTES + 2)
        finish(() => reject(new Error("an answer larger than a message")));
      if (read.length < 2 || read.length < 2 + read.readUInt16BE(0)) return;
      const received = read.subarray(2, 2 + read.readUInt16BE(0));
      const message = accept(received);
      finish(() =>
        message === undefined
          ? reject(new Error("an answer to something else"))
          : resolve({ bytes: received, message }),
      );
    });
    socket.on("error", (error) => finish(() => reject(error)));
    socket.on("close", () => finish(() => reject(new Error("closed without an answer"))));
  });
}

/**
 * Throws `traffic.unreachable` (outcome `unknown`: the request may have arrived), `auth.invalid` when the answer is
 * not signed with the key. What the answer's code means is the caller's to say.
 */
export async function askDns(exchange: DnsExchange, signal: AbortSignal): Promise<DecodedMessage> {
  const { server, key, nowMs } = exchange;
  const id = randomInt(65_536);
  const plain = encodeMessage({ ...exchange.message, id });
  const signed = key === undefined ? undefined : signMessage(plain, key, nowMs());
  const bytes = signed?.bytes ?? plain;
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(exchange.timeoutMs)]);
  const attempt: Attempt = { bytes, server, deadline, accept: (data) => answers(data, id, exchange.message) };
  let received: Received;
  try {
    deadline.throwIfAborted();
    received = bytes.length > MAX_UDP_BYTES ? await overTcp(attempt) : await overUdp(attempt);
    if (received.message.truncated) received = await overTcp(attempt);
  } catch (cause) {
    if (signal.aborted)
      throw new OperationalError("aborted", "the DNS request was aborted", { outcome: "unknown", cause });
    throw new OperationalError(
      "traffic.unreachable",
      `the DNS server ${server.host} port ${server.port} does not answer: check that it runs and is reachable from here`,
      { outcome: "unknown", detail: String(cause), cause },
    );
  }
  if (key !== undefined && signed !== undefined) checkSignature(received, key, signed.mac, nowMs());
  return received.message;
}

function checkSignature({ bytes, message }: Received, key: TsigKey, requestMac: Buffer, nowMs: number): void {
  const verdict = verifyMessage(bytes, key, nowMs, requestMac);
  if (verdict.ok && verdict.tsig.error === 0) return;
  const remote = verdict.tsig?.error ?? 0;
  const detail = `TSIG error ${remote}, response code ${message.code}${verdict.ok ? "" : `, ${verdict.reason}`}`;
  // An unsigned refusal cannot be trusted, but neither was anything confirmed: the outcome stays unknown.
  const refuse = (code: "auth.invalid" | "traffic.refused", text: string): never => {
    throw new OperationalError(code, text, { outcome: "unknown", detail, remoteCode: `TSIG${remote}` });
  };
  if (remote === 17)
    refuse(
      "auth.invalid",
      `the DNS server does not know the TSIG key ${key.name}, or gives it no rights: check its name, algorithm and the access rules there`,
    );
  if (remote === 16)
    refuse(
      "auth.invalid",
      `the DNS server does not accept the signature of ${key.name}: check the key's secret`,
    );
  if (remote === 18 || (!verdict.ok && verdict.reason === "stale"))
    refuse(
      "auth.invalid",
      "the DNS server's clock and ours differ by more than five minutes: set both by NTP",
    );
  if (!verdict.ok && verdict.reason === "unsigned" && message.code !== 0)
    refuse(
      "auth.invalid",
      `the DNS server refused without a signature: check that it knows the TSIG key ${key.name}`,
    );
  refuse(
    "auth.invalid",
    `the DNS server's answer is not signed with the TSIG key ${key.name}: check the key's secret`,
  );
}
