import { createHash } from "node:crypto";
import { damaged } from "./vault-damage.ts";

/** Documents that are read before any key is there: a line of JSON and its SHA-256, so that damage is told from a wrong key. */
export function encodeChecked(value: unknown): Buffer {
  const line = `${JSON.stringify(value)}\n`;
  return Buffer.from(`${line}${sumOf(Buffer.from(line))}\n`);
}

/** Throws `vault.damaged`, naming `name`. The value's shape is still to be checked. */
export function decodeChecked(name: string, bytes: Buffer): unknown {
  const end = bytes.indexOf(10) + 1;
  if (end === 0 || end > 65_536) throw damaged(name, "is not a checked document");
  if (bytes.subarray(end).toString("latin1") !== `${sumOf(bytes.subarray(0, end))}\n`)
    throw damaged(name, "does not have its checksum");
  try {
    return JSON.parse(bytes.toString("utf8", 0, end)) as unknown;
  } catch (error) {
    throw damaged(name, "is not JSON", error);
  }
}

const sumOf = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");
