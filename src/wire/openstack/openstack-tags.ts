/**
 * Where the model's tags, a create's token and its scope live in OpenStack's objects.
 *
 * - Server and volume metadata travel with the create: tags, token and scope are metadata items. Keys take
 *   `[a-zA-Z0-9-_:. ]` only, keys and values at most 255 characters.
 * - Neutron's tags cannot be given with a create (they are a second call), a description can. So token and scope are a
 *   marker at the end of the description, and the tags follow as `key=value` texts of at most 255 characters
 *   (60 before Zed: such a cloud refuses longer ones and the driver passes its words on).
 * - A key pair has neither; its public key has a comment, which takes the marker.
 * - `Name` is the name field.
 */
import { createHash } from "node:crypto";
import { OperationalError } from "#kernel/errors.ts";
import type { Tags } from "#model/resource.ts";

export const metadataTokenKey = "understudy:token";
export const metadataScopeKey = "understudy:scope";
export const maxTagText = 255;

const ownKeys = new Set([metadataTokenKey, metadataScopeKey]);

/** 128 bits of SHA-256: what is unbounded text in the model has a place in a field of bounded length. */
function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 32);
}

export interface Marker {
  readonly scopeDigest: string;
  readonly tokenDigest: string;
}

export function markerFor(scope: string, token: string): Marker {
  return { scopeDigest: digest(scope), tokenDigest: digest(token) };
}

export function scopeDigestOf(scope: string): string {
  return digest(scope);
}

export function markerText(marker: Marker): string {
  return `[understudy:${marker.scopeDigest}:${marker.tokenDigest}]`;
}

const markerPattern = / ?\[understudy:([0-9a-f]{32}):([0-9a-f]{32})\]$/;

export function splitMarker(text: string): { readonly text: string; readonly marker?: Marker } {
  const match = markerPattern.exec(text);
  if (match === null) return { text };
  return {
    text: text.slice(0, match.index),
    marker: { scopeDigest: match[1] ?? "", tokenDigest: match[2] ?? "" },
  };
}

/** Nova's own tags (2.26) are what its lists can be filtered by: at most 60 characters, no `/` or `,`. */
export function serverFilterTags(marker: Marker): { readonly token: string; readonly scope: string } {
  return {
    token: `understudy-token-${marker.tokenDigest}`,
    scope: `understudy-scope-${marker.scopeDigest}`,
  };
}

/**
 * Reversible: a character that the place does not take becomes `_xHHHH_`, as in XML names made of any text
 * (ECMA-376 ST_Xstring), and a literal `_x` keeps its underscore escaped.
 */
function escapeText(text: string, allowed: RegExp): string {
  let escaped = "";
  for (let index = 0; index < text.length; index += 1) {
    const char = text.charAt(index);
    const looksEscaped = char === "_" && text.charAt(index + 1) === "x";
    escaped +=
      allowed.test(char) && !looksEscaped
        ? char
        : `_x${text.charCodeAt(index).toString(16).toUpperCase().padStart(4, "0")}_`;
  }
  return escaped;
}

function unescapeText(text: string): string {
  return text.replace(/_x([0-9A-F]{4})_/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

const metadataKeyChar = /[a-zA-Z0-9\-_:. ]/;
const neutronKeyPlain = /[^=,]/;

function tooLong(key: string): OperationalError {
  return new OperationalError(
    "cloud.unsupported",
    `the tag ${key} is too long for OpenStack, which takes ${maxTagText} characters: shorten it`,
  );
}

/** Tags as metadata items, without `Name`. Throws `cloud.unsupported` for what metadata cannot hold. */
export function metadataFromTags(tags: Tags): Record<string, string> {
  const items: [string, string][] = [];
  for (const [key, value] of Object.entries(tags)) {
    if (key === "Name") continue;
    const item = metadataKey(key);
    if (item.length > maxTagText || value.length > maxTagText) throw tooLong(key);
    items.push([item, value]);
  }
  return Object.fromEntries(items);
}

export function metadataKey(key: string): string {
  return escapeText(key, metadataKeyChar);
}

export function tagsFromMetadata(metadata: Readonly<Record<string, string>>, name?: string): Tags {
  const tags: [string, string][] = name === undefined || name === "" ? [] : [["Name", name]];
  for (const [key, value] of Object.entries(metadata)) {
    if (!ownKeys.has(key)) tags.push([unescapeText(key), value]);
  }
  return Object.fromEntries(tags);
}

/** A comma separates tags in Neutron's filters, so that a value's is escaped too. */
export function neutronTag(key: string, value: string): string {
  const text = `${escapeText(key, neutronKeyPlain)}=${escapeText(value, /[^,]/)}`;
  if (text.length > maxTagText) throw tooLong(key);
  return text;
}

export function neutronTagsFrom(tags: Tags, nameIsTag = false): string[] {
  return Object.entries(tags)
    .filter(([key]) => nameIsTag || key !== "Name")
    .map(([key, value]) => neutronTag(key, value));
}

/** A tag without `=`, made by other tools, is a key with an empty value. */
export function tagsFromNeutron(list: readonly string[], name?: string): Tags {
  const tags: [string, string][] = name === undefined || name === "" ? [] : [["Name", name]];
  for (const text of list) {
    if (text.startsWith(descriptionTailTag) || text.startsWith(neutronTokenTag)) continue;
    const at = text.indexOf("=");
    const key = at < 0 ? text : text.slice(0, at);
    tags.push([unescapeText(key), at < 0 ? "" : unescapeText(text.slice(at + 1))]);
  }
  return Object.fromEntries(tags);
}

/** The tag by which a finished object is known, also when somebody has changed its description. */
const neutronTokenTag = "understudy:token=";

export function neutronTokenTagFor(marker: Marker): string {
  return `${neutronTokenTag}${marker.tokenDigest}`;
}

/** What of a description the marker leaves no room for is kept in a tag with this prefix. */
export const descriptionTailTag = "understudy:d=";
const maxDescription = 255;

export interface MarkedDescription {
  readonly description: string;
  /** The tag that carries the rest, where there is one. */
  readonly tail?: string;
}

export function markDescription(text: string, marker: Marker): MarkedDescription {
  const mark = markerText(marker);
  const room = maxDescription - mark.length - 1;
  if (text === "") return { description: mark };
  if (text.length <= room) return { description: `${text} ${mark}` };
  return {
    description: `${text.slice(0, room)} ${mark}`,
    tail: `${descriptionTailTag}${escapeText(text.slice(room), /[^,]/)}`,
  };
}

export function readDescription(
  description: string | null | undefined,
  tags: readonly string[] = [],
): { readonly text: string; readonly marker?: Marker } {
  const split = splitMarker(description ?? "");
  if (split.marker === undefined) return split;
  const tail = tags.find((tag) => tag.startsWith(descriptionTailTag));
  if (tail === undefined) return split;
  return { text: split.text + unescapeText(tail.slice(descriptionTailTag.length)), marker: split.marker };
}
