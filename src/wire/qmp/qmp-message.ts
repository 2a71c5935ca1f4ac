/**
 * The QEMU Machine Protocol, server to client and back: JSON objects, one a line (QEMU document `interop/qmp-spec`). This is
 * the shape alone; what commands and events mean is for the caller.
 */
import type { Json } from "#kernel/json.ts";

export type JsonObject = { readonly [key: string]: Json };

export interface QmpGreeting {
  readonly kind: "greeting";
  /** E.g. `{ major: 7, minor: 2, micro: 22 }`. */
  readonly version: { readonly major: number; readonly minor: number; readonly micro: number };
  readonly capabilities: readonly string[];
}

export interface QmpReturn {
  readonly kind: "return";
  readonly id: string | null;
  readonly value: Json;
}

export interface QmpError {
  readonly kind: "error";
  /** Null: the line could not be understood, or the command had none. */
  readonly id: string | null;
  /** E.g. `GenericError`, `DeviceNotFound`, `CommandNotFound`. */
  readonly errorClass: string;
  readonly description: string;
}

export interface QmpEvent {
  readonly kind: "event";
  readonly name: string;
  readonly data: JsonObject;
  /** Microseconds since the epoch by the host's clock; null when QEMU could not tell. */
  readonly timeUs: number | null;
}

export type QmpMessage = QmpGreeting | QmpReturn | QmpError | QmpEvent;

/** Null: not a message of the protocol. Never throws. */
export function decodeQmpMessage(line: string): QmpMessage | null {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return null;
  }
  if (!isObject(value)) return null;
  if ("QMP" in value) return decodeGreeting(value["QMP"]);
  if ("return" in value) return { kind: "return", id: decodeId(value["id"]), value: value["return"] };
  if ("error" in value) return decodeError(value);
  return "event" in value ? decodeEvent(value) : null;
}

/**
 * One line with its end. `id` comes back in the answer. `outOfBand`: served even while QEMU's main loop stands; few commands
 * allow it, and the capability `oob` must have been enabled.
 */
export function encodeQmpCommand(
  id: string,
  command: string,
  args?: JsonObject,
  { outOfBand = false }: { readonly outOfBand?: boolean } = {},
): string {
  const verb = outOfBand ? "exec-oob" : "execute";
  return `${JSON.stringify({ [verb]: command, ...(args && { arguments: args }), id })}\r\n`;
}

function decodeGreeting(greeting: unknown): QmpGreeting | null {
  if (!isObject(greeting) || !isObject(greeting["version"])) return null;
  const qemu = greeting["version"]["qemu"];
  if (!isObject(qemu)) return null;
  const [major, minor, micro] = [qemu["major"], qemu["minor"], qemu["micro"]];
  if (typeof major !== "number" || typeof minor !== "number" || typeof micro !== "number") return null;
  const offered = greeting["capabilities"];
  const capabilities = Array.isArray(offered)
    ? offered.filter((name): name is string => typeof name === "string")
    : [];
  return { kind: "greeting", version: { major, minor, micro }, capabilities };
}

function decodeError(value: JsonObject): QmpError | null {
  const error = value["error"];
  if (!isObject(error)) return null;
  const [errorClass, description] = [error["class"], error["desc"]];
  if (typeof errorClass !== "string" || typeof description !== "string") return null;
  return { kind: "error", id: decodeId(value["id"]), errorClass, description };
}

function decodeEvent(value: JsonObject): QmpEvent | null {
  const name = value["event"];
  if (typeof name !== "string") return null;
  const data = value["data"];
  const stamp = value["timestamp"];
  const seconds = isObject(stamp) ? stamp["seconds"] : undefined;
  const microseconds = isObject(stamp) ? stamp["microseconds"] : undefined;
  // -1 is QEMU's word for "unknown".
  const known = typeof seconds === "number" && typeof microseconds === "number" && seconds >= 0;
  return {
    kind: "event",
    name,
    data: isObject(data) ? data : {},
    timeUs: known ? seconds * 1_000_000 + microseconds : null,
  };
}

function decodeId(id: unknown): string | null {
  return typeof id === "string" ? id : null;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
