/** How QEMU and its programs reach an NBD export. Pure. */
import type { JsonObject } from "#wire/qmp/qmp-message.ts";
import type { NbdLocation } from "./machine-spec.ts";

export const exportNode = (disk: string): string => `export-${disk}`;

/** What QEMU shows to a server over TLS, for one node: read from the folder when it is made, so that a renewed certificate is taken. */
export function planCredentials(nodeName: string, location: NbdLocation): JsonObject[] {
  if (location.kind === "unix" || location.certificates === undefined) return [];
  return [
    {
      "qom-type": "tls-creds-x509",
      id: credentialsOf(nodeName),
      endpoint: "client",
      "verify-peer": true,
      dir: location.certificates,
    },
  ];
}

export const credentialsOf = (nodeName: string): string => `tls-${nodeName}`;

export function planNbdNode(nodeName: string, location: NbdLocation, reconnectSeconds: number): JsonObject {
  const server =
    location.kind === "unix"
      ? { type: "unix", path: location.path }
      : { type: "inet", host: location.host, port: String(location.port) };
  return {
    driver: "nbd",
    "node-name": nodeName,
    server,
    export: location.export,
    ...(planCredentials(nodeName, location).length > 0 && { "tls-creds": credentialsOf(nodeName) }),
    "reconnect-delay": reconnectSeconds,
  };
}

/** As in the NBD project's document `uri`. */
export function nbdUri(location: NbdLocation): string {
  const name = encodeURIComponent(location.export);
  return location.kind === "unix"
    ? `nbd+unix:///${name}?socket=${encodeURIComponent(location.path)}`
    : `nbd://${location.host}:${location.port}/${name}`;
}

/** The node whose credentials a program of QEMU's is given for the export that an image's header names. */
const HEADER_NODE = "header";

/** The export as the name of a backing file, in an image's header. */
export function backingName(location: NbdLocation): string {
  if (planCredentials(HEADER_NODE, location).length === 0) return nbdUri(location);
  const { "node-name": _name, ...file } = planNbdNode(HEADER_NODE, location, 0);
  return jsonName(file);
}

/** For programs that open an image by its header: what the `backingName` there refers to. */
export function headerCredentials(backing: string, certificates: string | undefined): string[] {
  if (certificates === undefined || !backing.includes(credentialsOf(HEADER_NODE))) return [];
  const anywhere = { kind: "tcp", host: "", port: 1, export: "" } as const;
  const credentials = planCredentials(HEADER_NODE, { ...anywhere, certificates });
  return credentials.flatMap((object) => ["--object", JSON.stringify(object)]);
}

/** Arguments for programs of QEMU's that are to open the export once. */
export function nbdArguments(location: NbdLocation): string[] {
  const credentials = planCredentials("probe", location);
  if (credentials.length === 0) return ["-f", "raw", nbdUri(location)];
  const { "node-name": _name, ...file } = planNbdNode("probe", location, 0);
  return [...credentials.flatMap((object) => ["--object", JSON.stringify(object)]), jsonName(file)];
}

const jsonName = (file: JsonObject): string => `json:${JSON.stringify({ driver: "raw", file })}`;
