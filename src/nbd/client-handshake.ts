/** The handshake of one connection, seen by the client. */
import type { Duplex } from "node:stream";
import { type ErrorCode, OperationalError } from "#kernel/errors.ts";
import {
  type ListedExport,
  type MetaContext,
  decodeExportNameReply,
  decodeGreeting,
  decodeInfo,
  decodeListedExport,
  decodeMetaContext,
  decodeOptionReplyHeader,
  encodeClientFlags,
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
} from "#wire/nbd/handshake.ts";
import {
  greetingBytes,
  handshakeFlag,
  infoType,
  maxOptionBytes,
  maxPayloadBytes,
  nbdOption,
  optionReply,
  optionReplyHeaderBytes,
} from "#wire/nbd/protocol.ts";
import { ByteSource } from "./byte-source.ts";

/** What the server said of the export; the same at every connection, or the client refuses to go on. */
export interface NbdExportFacts {
  readonly sizeBytes: number;
  /** Transmission flags (`wire/nbd/protocol.ts`). */
  readonly flags: number;
  readonly description: string | undefined;
  readonly minimumBlockBytes: number;
  readonly preferredBlockBytes: number;
  readonly maximumBlockBytes: number;
}

export interface ClientNegotiated {
  readonly stream: Duplex;
  /** What the server sent already of the transmission phase. */
  readonly leftover: Buffer;
  readonly facts: NbdExportFacts;
  readonly structured: boolean;
  readonly contexts: readonly MetaContext[];
}

export interface ClientHandshakeOptions {
  readonly exportName: string;
  /** Contexts to ask for; the server gives those that it knows. */
  readonly contexts: readonly string[];
  /** Undefined: in the clear. */
  readonly startTls?: (stream: Duplex) => Promise<Duplex>;
}

/** Of all replies to one option, with their headers: more than any server has reason to send. */
const maxAnswerBytes = 1024 * 1024;
/** A list of exports may be long. */
const maxListBytes = 16 * 1024 * 1024;

const replyErrors: Readonly<Record<number, readonly [ErrorCode, string]>> = {
  [optionReply.errUnsupported]: ["nbd.refused", "does not know what was asked for"],
  [optionReply.errPolicy]: ["nbd.refused", "does not allow it"],
  [optionReply.errInvalid]: ["nbd.refused", "found the request invalid"],
  [optionReply.errPlatform]: ["nbd.refused", "cannot do it on its platform"],
  [optionReply.errTlsRequired]: ["nbd.refused", "serves over TLS only"],
  [optionReply.errUnknown]: ["not_found", "has no such export"],
  [optionReply.errShutdown]: ["nbd.unreachable", "is shutting down"],
  [optionReply.errBlockSizeRequired]: ["nbd.refused", "insists on its block size"],
  [optionReply.errTooBig]: ["nbd.refused", "found the request too large"],
};

interface OptionReply {
  readonly type: number;
  readonly data: Buffer;
}

/** One connection's handshake, option by option. */
class Haggling {
  stream: Duplex;
  #source: ByteSource;
  readonly #signal: AbortSignal;

  constructor(stream: Duplex, signal: AbortSignal) {
    this.stream = stream;
    this.#source = new ByteSource(stream);
    this.#signal = signal;
  }

  read(length: number): Promise<Buffer> {
    return this.#source.read(length, this.#signal);
  }

  /** Lets go of the stream; what came already and was not asked for. */
  release(): Buffer {
    return this.#source.release();
  }

  async upgrade(startTls: (plain: Duplex) => Promise<Duplex>): Promise<void> {
    // The server speaks next only after the TLS handshake: what is here already was put there by someone else.
    if (this.#source.buffered > 0)
      throw new OperationalError("nbd.protocol", "there were bytes in the clear after TLS was agreed");
    this.#source.release();
    this.stream = await startTls(this.stream);
    this.#source = new ByteSource(this.stream);
  }

  /** All replies to an option up to the final one; errors are answers too. */
  async ask(
    option: number,
    data?: Buffer,
    maxBytes = maxAnswerBytes,
  ): Promise<{ infos: OptionReply[]; final: OptionReply }> {
    this.stream.write(encodeOption(option, data));
    const infos: OptionReply[] = [];
    for (let bytes = 0; bytes <= maxBytes;) {
      const header = decodeOptionReplyHeader(await this.read(optionReplyHeaderBytes));
      if (header === undefined || header.option !== option || header.length > maxOptionBytes)
        throw new OperationalError("nbd.protocol", "the NBD server sent what is no answer to the option");
      const reply = { type: header.type, data: await this.read(header.length) };
      if (reply.type === optionReply.ack || reply.type >= 0x80000000) return { infos, final: reply };
      infos.push(reply);
      bytes += optionReplyHeaderBytes + header.length;
    }
    throw new OperationalError("nbd.protocol", "the NBD server does not stop answering");
  }
}

function refusal(reply: OptionReply, what: string): OperationalError {
  const [code, text] = replyErrors[reply.type] ?? ["nbd.refused", `answered ${reply.type}`];
  const said = reply.data.toString("utf8").slice(0, 1000);
  return new OperationalError(code, `the NBD server ${text} (${what})`, said === "" ? {} : { detail: said });
}

async function begin(stream: Duplex, options: ClientHandshakeOptions, signal: AbortSignal) {
  const haggling = new Haggling(stream, signal);
  const offered = decodeGreeting(await haggling.read(greetingBytes));
  if (offered === undefined || (offered & handshakeFlag.fixedNewstyle) === 0)
    throw new OperationalError("nbd.protocol", "the other side does not speak fixed newstyle NBD");
  const agreed = offered & (handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes);
  stream.write(encodeClientFlags(agreed));
  if (options.startTls !== undefined) {
    const { final } = await haggling.ask(nbdOption.startTls);
    if (final.type !== optionReply.ack) throw refusal(final, "TLS");
    await haggling.upgrade(options.startTls);
  }
  return { haggling, noZeroes: (agreed & handshakeFlag.noZeroes) !== 0 };
}

/**
 * @throws OperationalError `not_found` (no such export), `nbd.refused`, `nbd.protocol`, `nbd.unreachable`, `auth.invalid` (TLS), or
 * the signal's reason. The caller drops the connection then.
 */
export async function negotiateAsClient(
  stream: Duplex,
  options: ClientHandshakeOptions,
  signal: AbortSignal,
): Promise<ClientNegotiated> {
  const { haggling, noZeroes } = await begin(stream, options, signal);
  const structured = (await haggling.ask(nbdOption.structuredReply)).final.type === optionReply.ack;
  const contexts = structured ? await selectContexts(haggling, options) : [];
  const facts = await chooseExport(haggling, options.exportName, noZeroes);
  const { stream: agreed } = haggling;
  return { stream: agreed, leftover: haggling.release(), facts, structured, contexts };
}

async function selectContexts(haggling: Haggling, options: ClientHandshakeOptions): Promise<MetaContext[]> {
  if (options.contexts.length === 0) return [];
  const request = { exportName: options.exportName, queries: options.contexts };
  const { infos, final } = await haggling.ask(nbdOption.setMetaContext, encodeMetaContextRequest(request));
  if (final.type !== optionReply.ack) return [];
  return infos.flatMap(({ type, data }) => {
    const context = type === optionReply.metaContext ? decodeMetaContext(data) : undefined;
    return context === undefined ? [] : [context];
  });
}

async function chooseExport(haggling: Haggling, name: string, noZeroes: boolean): Promise<NbdExportFacts> {
  const request = { exportName: name, infos: [infoType.description, infoType.blockSize] };
  const { infos, final } = await haggling.ask(nbdOption.go, encodeInfoRequest(request));
  if (final.type === optionReply.errUnsupported) return chooseByName(haggling, name, noZeroes);
  if (final.type !== optionReply.ack) throw refusal(final, `export "${name}"`);
  const decoded = infos.flatMap(({ type, data }) => {
    const info = type === optionReply.info ? decodeInfo(data) : undefined;
    return info === undefined ? [] : [info];
  });
  const size = decoded.find((info) => info.type === "export");
  if (size === undefined)
    throw new OperationalError("nbd.protocol", "the NBD server did not say the export's size");
  const blocks = decoded.find((info) => info.type === "blockSize");
  return checkedFacts({
    sizeBytes: size.sizeBytes,
    flags: size.flags,
    description: decoded.find((info) => info.type === "description")?.description,
    minimumBlockBytes: blocks?.minimum ?? 1,
    preferredBlockBytes: blocks?.preferred ?? 4096,
    maximumBlockBytes: Math.min(blocks?.maximum ?? maxPayloadBytes, maxPayloadBytes),
  });
}

/** The way of servers that know no other; they close the connection instead of saying no. */
async function chooseByName(haggling: Haggling, name: string, noZeroes: boolean): Promise<NbdExportFacts> {
  haggling.stream.write(encodeOption(nbdOption.exportName, Buffer.from(name)));
  const reply = decodeExportNameReply(await haggling.read(noZeroes ? 10 : 134));
  return checkedFacts({
    ...reply,
    description: undefined,
    minimumBlockBytes: 1,
    preferredBlockBytes: 4096,
    maximumBlockBytes: maxPayloadBytes,
  });
}

function checkedFacts(facts: NbdExportFacts): NbdExportFacts {
  const { minimumBlockBytes: minimum, maximumBlockBytes: maximum, sizeBytes } = facts;
  const power = minimum > 0 && (minimum & (minimum - 1)) === 0;
  if (!Number.isSafeInteger(sizeBytes) || !power || minimum > 65_536 || maximum < minimum)
    throw new OperationalError("nbd.protocol", "the NBD server's sizes make no sense", {
      detail: JSON.stringify(facts),
    });
  return facts;
}

/** The server's exports, and its own orderly end. Errors as for `negotiateAsClient`. */
export async function listAsClient(
  stream: Duplex,
  options: Pick<ClientHandshakeOptions, "startTls">,
  signal: AbortSignal,
): Promise<ListedExport[]> {
  const { haggling } = await begin(stream, { exportName: "", contexts: [], ...options }, signal);
  const { infos, final } = await haggling.ask(nbdOption.list, undefined, maxListBytes);
  if (final.type !== optionReply.ack) throw refusal(final, "list of exports");
  await haggling.ask(nbdOption.abort).catch(() => {});
  haggling.stream.end();
  return infos.flatMap(({ type, data }) => {
    const entry = type === optionReply.server ? decodeListedExport(data) : undefined;
    return entry === undefined ? [] : [entry];
  });
}
