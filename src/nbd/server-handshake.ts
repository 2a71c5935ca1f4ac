/**
 * The handshake of one connection, seen by the server: fixed newstyle, and nothing older. Everything that a peer can send here is
 * bounded: an option's bytes, the number of options, and (by the caller's signal) the time.
 */
import type { Duplex } from "node:stream";
import { OperationalError, publicMessage } from "#kernel/errors.ts";
import {
  type InfoRequest,
  type MetaContext,
  decodeInfoRequest,
  decodeMetaContextRequest,
  decodeNbdString,
  decodeOptionHeader,
  encodeExportNameReply,
  encodeGreeting,
  encodeInfo,
  encodeListedExport,
  encodeMetaContext,
  encodeOptionReply,
} from "#wire/nbd/handshake.ts";
import {
  allocationContext,
  handshakeFlag,
  infoType,
  maxOptionBytes,
  maxPayloadBytes,
  nbdOption,
  optionHeaderBytes,
  optionReply,
  transmissionFlag,
} from "#wire/nbd/protocol.ts";
import { type ExportProvider, type NbdExport } from "./export-provider.ts";
import { ByteSource } from "./byte-source.ts";

/** More options than any client needs; one that sends more is not negotiating. */
const maxOptions = 128;

/** What a peer may do: see `NbdAccess` of the server's options. */
export type PeerAccess = "none" | "read" | "write";

export interface HandshakeOptions {
  readonly provider: ExportProvider;
  /** Who the peer is as far as the transport says, before TLS. */
  readonly access: PeerAccess;
  /** `required`: nothing but STARTTLS and ABORT is answered in the clear. */
  readonly tls: "off" | "optional" | "required";
  /** Runs the TLS handshake over the stream; answers what the peer may do then. Rejects when it fails. */
  startTls(stream: Duplex): Promise<{ readonly stream: Duplex; readonly access: PeerAccess }>;
}

export interface Negotiated {
  readonly stream: Duplex;
  /** What the peer sent already of the transmission phase. */
  readonly leftover: Buffer;
  readonly opened: NbdExport;
  readonly exportName: string;
  readonly structured: boolean;
  /** Selected contexts; id 1 is `base:allocation`, and 2 + n the export's n-th dirty context. */
  readonly contexts: readonly MetaContext[];
}

/** All that the options so far have settled. */
interface Session {
  stream: Duplex;
  source: ByteSource;
  access: PeerAccess;
  encrypted: boolean;
  noZeroes: boolean;
  structured: boolean;
  /** Selected for one export only: another name at the end drops them. */
  selected: { readonly exportName: string; readonly contexts: readonly MetaContext[] };
}

/** What an option led to: the next option, the transmission phase, or the end. */
type Step = "next" | "end" | { readonly opened: NbdExport; readonly exportName: string };

/**
 * Undefined when the peer left in an orderly way or can be told nothing more.
 * @throws OperationalError `nbd.protocol` for a peer that breaks the rules, `nbd.unreachable` for one that is gone, or the signal's
 * reason. The caller then drops the connection.
 */
export async function negotiate(
  stream: Duplex,
  options: HandshakeOptions,
  signal: AbortSignal,
): Promise<Negotiated | undefined> {
  stream.write(encodeGreeting(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes));
  const source = new ByteSource(stream);
  const flags = (await source.read(4, signal)).readUInt32BE(0);
  const known = handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes;
  // The document: the server MUST drop a client that sets a flag it does not know. `>>>`: bit 31 is a flag too.
  if ((flags & ~known) >>> 0 !== 0 || (flags & handshakeFlag.fixedNewstyle) === 0)
    throw new OperationalError("nbd.protocol", "the peer does not speak fixed newstyle NBD");
  const session: Session = {
    stream,
    source,
    access: options.access,
    encrypted: false,
    noZeroes: (flags & handshakeFlag.noZeroes) !== 0,
    structured: false,
    selected: { exportName: "", contexts: [] },
  };
  for (let count = 0; count < maxOptions; count += 1) {
    const header = decodeOptionHeader(await session.source.read(optionHeaderBytes, signal));
    if (header === undefined)
      throw new OperationalError("nbd.protocol", "the peer sent what is no NBD option");
    if (header.length > maxOptionBytes)
      throw new OperationalError("nbd.protocol", `the peer sent an option of ${header.length} bytes`);
    const data = await session.source.read(header.length, signal);
    const step = await answerOption(session, options, { option: header.option, data }, signal);
    if (step === "end") return undefined;
    if (step === "next") continue;
    const contexts = session.selected.exportName === step.exportName ? session.selected.contexts : [];
    const { stream, structured } = session;
    return { ...step, stream, structured, contexts, leftover: session.source.release() };
  }
  throw new OperationalError("nbd.protocol", `the peer sent ${maxOptions} options and no choice`);
}

interface Option {
  readonly option: number;
  readonly data: Buffer;
}

async function answerOption(
  session: Session,
  options: HandshakeOptions,
  { option, data }: Option,
  signal: AbortSignal,
): Promise<Step> {
  const reply = (type: number, payload?: Buffer | string): "next" => {
    const bytes = typeof payload === "string" ? Buffer.from(payload) : payload;
    session.stream.write(encodeOptionReply(option, type, bytes));
    return "next";
  };
  if (option === nbdOption.abort) {
    reply(optionReply.ack);
    session.stream.end();
    return "end";
  }
  if (option === nbdOption.startTls) return startTls(session, options, data, reply);
  if (options.tls === "required" && !session.encrypted) {
    if (option === nbdOption.exportName) return hardEnd(session);
    return reply(optionReply.errTlsRequired, "this server speaks TLS only");
  }
  if (session.access === "none") {
    if (option === nbdOption.exportName) return hardEnd(session);
    return reply(optionReply.errPolicy, "this server serves authenticated peers only");
  }
  switch (option) {
    case nbdOption.exportName:
      return chooseByName(session, options, data, signal);
    case nbdOption.list:
      return listExports(options, data, reply, signal);
    case nbdOption.info:
    case nbdOption.go:
      return answerInfo(session, options, { option, data }, reply, signal);
    case nbdOption.structuredReply:
      if (data.length > 0) return reply(optionReply.errInvalid);
      session.structured = true;
      return reply(optionReply.ack);
    case nbdOption.listMetaContext:
    case nbdOption.setMetaContext:
      return answerMetaContext(session, options, { option, data }, reply, signal);
    default:
      return reply(optionReply.errUnsupported);
  }
}

type Reply = (type: number, payload?: Buffer | string) => "next";

/** Where the protocol leaves no way to say an error. */
function hardEnd(session: Session): "end" {
  session.stream.destroy();
  return "end";
}

async function startTls(
  session: Session,
  options: HandshakeOptions,
  data: Buffer,
  reply: Reply,
): Promise<Step> {
  if (session.encrypted || data.length > 0) return reply(optionReply.errInvalid);
  if (options.tls === "off") return reply(optionReply.errPolicy, "this server does not offer TLS");
  // Bytes sent before the answer would be read as if they had come over TLS: an attacker's way in. A client must wait.
  if (session.source.buffered > 0)
    throw new OperationalError("nbd.protocol", "the peer sent more before TLS was agreed");
  session.source.release();
  reply(optionReply.ack);
  const secured = await options.startTls(session.stream);
  session.stream = secured.stream;
  session.source = new ByteSource(secured.stream);
  session.access = secured.access;
  session.encrypted = true;
  session.structured = false;
  session.selected = { exportName: "", contexts: [] };
  return "next";
}

async function listExports(
  options: HandshakeOptions,
  data: Buffer,
  reply: Reply,
  signal: AbortSignal,
): Promise<Step> {
  if (data.length > 0) return reply(optionReply.errInvalid);
  try {
    for (const { name, description } of await options.provider.listExports(signal))
      reply(optionReply.server, encodeListedExport({ name, description: description ?? "" }));
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    return reply(optionReply.errPolicy, publicMessage(error));
  }
  return reply(optionReply.ack);
}

function open(
  session: Session,
  options: HandshakeOptions,
  name: string,
  signal: AbortSignal,
): Promise<NbdExport | undefined> {
  return options.provider.openExport(name, { writable: session.access === "write", signal });
}

async function chooseByName(
  session: Session,
  options: HandshakeOptions,
  data: Buffer,
  signal: AbortSignal,
): Promise<Step> {
  const exportName = decodeNbdString(data);
  const opened = exportName === undefined ? undefined : await open(session, options, exportName, signal);
  if (opened === undefined || exportName === undefined) return hardEnd(session);
  const flags = transmissionFlags(opened, session.structured);
  session.stream.write(encodeExportNameReply(opened.device.sizeBytes, flags, session.noZeroes));
  return { opened, exportName };
}

async function answerInfo(
  session: Session,
  options: HandshakeOptions,
  { option, data }: Option,
  reply: Reply,
  signal: AbortSignal,
): Promise<Step> {
  const request = decodeInfoRequest(data);
  if (request === undefined) return reply(optionReply.errInvalid);
  let opened: NbdExport | undefined;
  try {
    opened = await open(session, options, request.exportName, signal);
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    return reply(optionReply.errPolicy, publicMessage(error));
  }
  if (opened === undefined) return reply(optionReply.errUnknown, "there is no such export");
  for (const info of infosOf(opened, request, session.structured)) reply(optionReply.info, info);
  if (option === nbdOption.info) await opened[Symbol.asyncDispose]();
  reply(optionReply.ack);
  return option === nbdOption.go ? { opened, exportName: request.exportName } : "next";
}

function infosOf(opened: NbdExport, request: InfoRequest, structured: boolean): Buffer[] {
  const flags = transmissionFlags(opened, structured);
  const infos = [encodeInfo({ type: "export", sizeBytes: opened.device.sizeBytes, flags })];
  const wanted = new Set(request.infos);
  if (wanted.has(infoType.name)) infos.push(encodeInfo({ type: "name", name: request.exportName }));
  if (wanted.has(infoType.description) && opened.description !== undefined)
    infos.push(encodeInfo({ type: "description", description: opened.description }));
  if (wanted.has(infoType.blockSize)) {
    const preferred = opened.preferredBlockBytes ?? 4096;
    infos.push(encodeInfo({ type: "blockSize", minimum: 1, preferred, maximum: maxPayloadBytes }));
  }
  return infos;
}

export function transmissionFlags(opened: NbdExport, structured: boolean): number {
  const flag = transmissionFlag;
  let flags = flag.hasFlags | flag.sendCache | flag.sendFlush | flag.sendFua;
  if (structured) flags |= flag.sendDf;
  if (opened.multiConn) flags |= flag.canMultiConn;
  if (!opened.writable) return flags | flag.readOnly;
  return flags | flag.sendTrim | flag.sendWriteZeroes | flag.sendFastZero;
}

async function answerMetaContext(
  session: Session,
  options: HandshakeOptions,
  { option, data }: Option,
  reply: Reply,
  signal: AbortSignal,
): Promise<Step> {
  const request = decodeMetaContextRequest(data);
  const selects = option === nbdOption.setMetaContext;
  // A failed selection leaves none behind.
  if (selects) session.selected = { exportName: "", contexts: [] };
  if (request === undefined || !session.structured) return reply(optionReply.errInvalid);
  let opened: NbdExport | undefined;
  try {
    opened = await open(session, options, request.exportName, signal);
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    return reply(optionReply.errPolicy, publicMessage(error));
  }
  if (opened === undefined) return reply(optionReply.errUnknown, "there is no such export");
  const offered = offeredContexts(opened);
  await opened[Symbol.asyncDispose]();
  const matching = selects
    ? offered.filter(({ name }) => request.queries.includes(name))
    : offered.filter(({ name }) => isListed(name, request.queries));
  for (const context of matching) reply(optionReply.metaContext, encodeMetaContext(context));
  if (selects) session.selected = { exportName: request.exportName, contexts: matching };
  return reply(optionReply.ack);
}

function offeredContexts(opened: NbdExport): MetaContext[] {
  const dirty = (opened.dirtyContexts ?? []).map(({ name }, index) => ({ id: index + 2, name }));
  return [{ id: 1, name: allocationContext }, ...dirty];
}

/** A list's query names a context, or ends in a colon and stands for all below it; no query asks for everything. */
function isListed(name: string, queries: readonly string[]): boolean {
  if (queries.length === 0) return true;
  return queries.some((query) => query === name || (query.endsWith(":") && name.startsWith(query)));
}
