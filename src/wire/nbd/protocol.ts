/**
 * Numbers of the NBD protocol, as its document gives them: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
 * All fields are big-endian. Where a number below carries no comment, the document's name is the key's.
 */

export const nbdMagic = {
  /** ASCII `NBDMAGIC`, then `IHAVEOPT`; the second also opens every option. */
  greetingHigh: 0x4e42444d,
  greetingLow: 0x41474943,
  optionHigh: 0x49484156,
  optionLow: 0x454f5054,
  optionReplyHigh: 0x0003e889,
  optionReplyLow: 0x045565a9,
  request: 0x25609513,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
} as const;

/** Sent by the server in its greeting, echoed by the client as what it agrees to. */
export const handshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const nbdOption = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

export const optionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsupported: 0x80000001,
  errPolicy: 0x80000002,
  errInvalid: 0x80000003,
  errPlatform: 0x80000004,
  errTlsRequired: 0x80000005,
  errUnknown: 0x80000006,
  errShutdown: 0x80000007,
  errBlockSizeRequired: 0x80000008,
  errTooBig: 0x80000009,
} as const;

export const infoType = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

export const transmissionFlag = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  rotational: 1 << 4,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  sendDf: 1 << 7,
  canMultiConn: 1 << 8,
  sendResize: 1 << 9,
  sendCache: 1 << 10,
  sendFastZero: 1 << 11,
} as const;

export const nbdCommand = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

export const commandFlag = { fua: 1, noHole: 2, dontFragment: 4, requestOne: 8, fastZero: 16 } as const;

export const replyFlag = { done: 1 } as const;

export const chunkType = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;

/** The error values a reply may carry; the protocol fixes the numbers, whatever the machine's own are. */
export const nbdError = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** Flags of a `base:allocation` descriptor. */
export const allocationState = { hole: 1, zero: 2 } as const;

/** Flag of a dirty context's descriptor (`qemu:dirty-bitmap:NAME` and ours). */
export const dirtyState = { dirty: 1 } as const;

export const allocationContext = "base:allocation";
/** What changed since the export's own reference (an overlay's base, the last captured point). */
export const dirtyContext = "understudy:dirty";
/** QEMU's namespace: https://www.qemu.org/docs/master/interop/nbd.html */
export const qemuBitmapPrefix = "qemu:dirty-bitmap:";

/** The document: a string MUST be no longer than 4096 bytes. */
export const maxStringBytes = 4096;
/** The largest payload that portable peers accept without asking: 32 MiB. */
export const maxPayloadBytes = 32 * 1024 * 1024;
/** Larger options are not read but end the connection: no valid option of a peer needs more. */
export const maxOptionBytes = 64 * 1024;

export const requestBytes = 28;
export const simpleReplyBytes = 16;
export const chunkHeaderBytes = 20;
export const optionHeaderBytes = 16;
export const optionReplyHeaderBytes = 20;
export const greetingBytes = 18;
