/**
 * NBD addresses: `nbd://HOST[:PORT]/EXPORT`, `nbd+unix:///EXPORT?socket=PATH`, and `nbds`, `nbds+unix` over TLS
 * (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md; the TLS parameters are libnbd's).
 */
import { OperationalError } from "#kernel/errors.ts";

export type NbdPeerAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

export interface NbdUri {
  readonly address: NbdPeerAddress;
  readonly exportName: string;
  readonly tls: boolean;
  /** Identity of a pre-shared key. */
  readonly username?: string;
  /** Folder with `ca-cert.pem`, `client-cert.pem`, `client-key.pem`. */
  readonly tlsCertificates?: string;
  /** File of lines `IDENTITY:HEX`. */
  readonly tlsPskFile?: string;
  /** The name that the server's certificate must carry, where it is not the host's. */
  readonly tlsHostname?: string;
}

/** The port that IANA gave to NBD. */
export const nbdPort = 10809;

const parameters = new Set(["socket", "tls-certificates", "tls-psk-file", "tls-hostname", "tls-username"]);

/** @throws OperationalError `input.invalid`, saying what is wrong with the address. */
export function parseNbdUri(text: string): NbdUri {
  const invalid = (why: string): OperationalError =>
    new OperationalError("input.invalid", `not an NBD address: ${why}`, { detail: text });
  const parts = /^(nbds?)(\+unix)?:\/\//i.exec(text);
  if (parts === null) throw invalid("it must begin with nbd://, nbds://, nbd+unix:// or nbds+unix://");
  if (!URL.canParse(text)) throw invalid("it is no URL");
  const url = new URL(text);
  for (const name of url.searchParams.keys())
    if (!parameters.has(name)) throw invalid(`there is no parameter ${name}`);
  const unix = parts[2] !== undefined;
  const socket = url.searchParams.get("socket");
  if (unix && (socket === null || socket === "")) throw invalid("a Unix socket needs ?socket=PATH");
  if (unix && url.hostname !== "") throw invalid("a Unix socket has no host");
  if (!unix && socket !== null) throw invalid("?socket= goes with nbd+unix:// only");
  if (url.password !== "") throw invalid("a password has no place in it");
  // From the text itself: a URL's path takes ".." for a step up, and a name is only a name.
  const path = /^[^:]+:\/\/[^/?#]*\/([^?#]*)/.exec(text)?.[1] ?? "";
  const exportName = decoded(path);
  const username = url.searchParams.get("tls-username") ?? decoded(url.username);
  if (exportName === undefined || username === undefined)
    throw invalid("a % is not followed by two hex digits");
  const optional = {
    username: username === "" ? null : username,
    tlsCertificates: url.searchParams.get("tls-certificates"),
    tlsPskFile: url.searchParams.get("tls-psk-file"),
    tlsHostname: url.searchParams.get("tls-hostname"),
  };
  const given = Object.entries(optional).filter(([, value]) => value !== null);
  return {
    address: unix ? { kind: "unix", path: socket ?? "" } : tcpAddress(url),
    exportName,
    tls: parts[1]?.toLowerCase() === "nbds",
    ...Object.fromEntries(given),
  };
}

function tcpAddress(url: URL): NbdPeerAddress {
  const host = url.hostname === "" ? "localhost" : url.hostname.replace(/^\[(.*)\]$/, "$1");
  return { kind: "tcp", host, port: url.port === "" ? nbdPort : Number(url.port) };
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

/** The same address as text; parameters that hold paths are encoded as far as a URL needs it. */
export function formatNbdUri(uri: NbdUri): string {
  const scheme = `${uri.tls ? "nbds" : "nbd"}${uri.address.kind === "unix" ? "+unix" : ""}`;
  const user = uri.username === undefined ? "" : `${encodeURIComponent(uri.username)}@`;
  const query = new URLSearchParams();
  if (uri.address.kind === "unix") query.set("socket", uri.address.path);
  if (uri.tlsCertificates !== undefined) query.set("tls-certificates", uri.tlsCertificates);
  if (uri.tlsPskFile !== undefined) query.set("tls-psk-file", uri.tlsPskFile);
  if (uri.tlsHostname !== undefined) query.set("tls-hostname", uri.tlsHostname);
  // libnbd reads a plus sign as itself.
  const tail = query.size === 0 ? "" : `?${query.toString().replaceAll("+", "%20").replaceAll("%2F", "/")}`;
  const name = uri.exportName.split("/").map(encodeURIComponent).join("/");
  return `${scheme}://${unixSafeUser(uri, user)}${hostOf(uri.address)}/${name}${tail}`;
}

/** A URL without a host cannot carry a user; libnbd then takes it from `tls-username`. */
function unixSafeUser(uri: NbdUri, user: string): string {
  return uri.address.kind === "unix" ? "" : user;
}

function hostOf(address: NbdPeerAddress): string {
  if (address.kind === "unix") return "";
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return address.port === nbdPort ? host : `${host}:${address.port}`;
}
