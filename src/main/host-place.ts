/** Host agents and the vault on several machines: where each is reached, what it shows, and what disks are called on the other side. */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { DiskHost } from "#cloud/disk-host.ts";
import type { Config } from "#config/config-schema.ts";
import type { HostPlace } from "#config/host-config.ts";
import { openHostClient } from "#hypervisor/host-api/host-client.ts";
import { OperationalError } from "#kernel/errors.ts";
import { Secret } from "#kernel/secret.ts";
import type { NbdServerTls } from "#nbd/nbd-tls.ts";
import { nbdSocketIn } from "#recovery/desk/open-desk.ts";
import type { ApiPlace } from "#wire/local-api/local-api-client.ts";
import { formatNbdUri, type NbdPeerAddress, parseNbdUri } from "#wire/nbd/nbd-uri.ts";
import { certificateFiles, type CertificateRole, type Certificates } from "#wire/tls/certificates.ts";

/** Errors: `config.missing`, naming the file. */
export function readCertificates(folder: string, role: CertificateRole): Certificates {
  const names = certificateFiles(role);
  const read = (name: string): string => {
    const path = join(folder, name);
    try {
      return readFileSync(path, "utf8");
    } catch (cause) {
      const message = `cannot read ${path}: \`certificates\` is a folder with ${names.ca}, ${names.cert} and ${names.key}`;
      throw new OperationalError("config.missing", message, { cause });
    }
  };
  const cert = read(names.cert);
  refuseExpired(join(folder, names.cert), cert);
  return { ca: read(names.ca), cert, key: new Secret(read(names.key)) };
}

function refuseExpired(path: string, text: string): void {
  const invalid = (why: string, cause?: unknown): OperationalError =>
    new OperationalError("config.invalid", `${path} ${why}`, { cause });
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(text);
  } catch (cause) {
    throw invalid("is no certificate in PEM", cause);
  }
  const { validTo } = certificate;
  if (Date.parse(validTo) < Date.now())
    throw invalid(`expired on ${validTo}: make a new one and start again`);
}

/** For an NBD server that only those may use who show a certificate for one of the names. */
export function nbdTlsOf({
  certificates,
  callers,
}: {
  readonly certificates: string;
  readonly callers: readonly string[];
}): NbdServerTls {
  const { ca, cert, key } = readCertificates(certificates, "server");
  return { mode: "required", certificate: { cert, key }, clientCa: ca, clientNames: callers };
}

/** Errors: those of `readCertificates`. */
export function placeOf(host: HostPlace): ApiPlace {
  if (!("url" in host)) return { socketPath: host.socket };
  return { ...authorityOf(host.url), certificates: readCertificates(host.certificates, "client") };
}

/** For probes, which have no certificate: that somebody listens is a sign of life. */
export function probedAddressOf(host: HostPlace): string {
  if (!("url" in host)) return `unix:${host.socket}`;
  return host.url.replace("https:", "tcp:");
}

/** Errors: those of `placeOf`. */
export function hostClientOf(host: HostPlace, vault: Config["vault"]): DiskHost {
  const client = openHostClient(placeOf(host));
  if (!("url" in host)) return client;
  const { host: hostname } = authorityOf(host.url);
  return acrossMachines(client, {
    hostname,
    certificates: host.certificates,
    vaultSocket: vault === undefined ? null : nbdSocketIn(vault.data),
    vaultAddress: vault?.hosts === undefined ? null : (vault.hosts.address ?? vault.hosts.listen),
  });
}

function authorityOf(url: string): { readonly host: string; readonly port: number } {
  const { hostname, port } = new URL(url);
  // The standard port is left out of a URL when it is parsed.
  return { host: hostname.replace(/^\[(.*)\]$/u, "$1"), port: port === "" ? 443 : Number(port) };
}

export interface Crossing {
  /** Where the control plane reaches the host, and what it shows there. */
  readonly hostname: string;
  readonly certificates: string;
  /** The vault's NBD server as processes of its machine reach it, and as the host does. */
  readonly vaultSocket: string | null;
  readonly vaultAddress: { readonly host: string; readonly port: number } | null;
}

/** A host on another machine: addresses of disks become what the one who gets them can reach. */
export function acrossMachines(host: DiskHost, crossing: Crossing): DiskHost {
  const { hostname, certificates, vaultSocket, vaultAddress } = crossing;
  const outward = (uri: string): string => {
    const { address, exportName } = parseNbdUri(uri);
    if (address.kind !== "unix" || address.path !== vaultSocket || vaultAddress === null) return uri;
    return formatNbdUri({ address: { kind: "tcp", ...vaultAddress }, exportName, tls: true });
  };
  const inward = (uri: string): string => {
    const { address, exportName, tls } = parseNbdUri(uri);
    if (!tls || vaultSocket === null || !isAt(address, vaultAddress)) return uri;
    return formatNbdUri({ address: { kind: "unix", path: vaultSocket }, exportName, tls: false });
  };
  const seen = <Status extends { readonly uri: string }>(status: Status): Status => ({
    ...status,
    uri: inward(status.uri),
  });
  return {
    startCapture: async (request, signal) =>
      seen(await host.startCapture({ ...request, uri: outward(request.uri) }, signal)),
    stopCapture: (volumeId, signal) => host.stopCapture(volumeId, signal),
    captures: async (signal) => (await host.captures(signal)).map(seen),
    seed: async (request, signal) => seen(await host.seed({ ...request, uri: outward(request.uri) }, signal)),
    seeds: async (signal) => (await host.seeds(signal)).map(seen),
    exportVolume: async (volumeId, signal) => {
      const { uri } = await host.exportVolume(volumeId, signal);
      // A host says by which port, and nothing else: no socket or file of this machine, and no machine but its own.
      const { address, exportName, tls } = parseNbdUri(uri);
      if (address.kind !== "tcp" || !tls) {
        const message = `the host agent at ${hostname} exports a volume in a way that does not reach this machine`;
        throw new OperationalError("machine.failing", message, { detail: uri });
      }
      const there = { ...address, host: hostname };
      return { uri: formatNbdUri({ address: there, exportName, tls, tlsCertificates: certificates }) };
    },
    endExport: (volumeId, signal) => host.endExport(volumeId, signal),
    agentAnswers: (serverId, signal) => host.agentAnswers(serverId, signal),
    freeze: (serverId, limitMs, signal) => host.freeze(serverId, limitMs, signal),
    thaw: (serverId, signal) => host.thaw(serverId, signal),
    exec: (serverId, program, signal) => host.exec(serverId, program, signal),
    console: (serverId, signal) => host.console(serverId, signal),
    screenshot: (serverId, signal) => host.screenshot(serverId, signal),
    [Symbol.asyncDispose]: () => host[Symbol.asyncDispose](),
  };
}

/** `vaultAddress` is as somebody wrote it; an address has several forms. */
function isAt(address: NbdPeerAddress, wanted: Crossing["vaultAddress"]): boolean {
  if (address.kind !== "tcp" || wanted === null || address.port !== wanted.port) return false;
  const uri = formatNbdUri({ address: { kind: "tcp", ...wanted }, exportName: "", tls: true });
  const known = parseNbdUri(uri).address;
  return known.kind === "tcp" && known.host.toLowerCase() === address.host.toLowerCase();
}
