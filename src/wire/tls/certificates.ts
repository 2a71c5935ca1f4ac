/**
 * What a process shows to others over TLS and asks of them: certificates of one CA on both sides. Files have the names that QEMU and libnbd
 * look for in a folder (https://www.qemu.org/docs/master/system/tls.html).
 */
import type { PeerCertificate, TLSSocket } from "node:tls";
import type { Secret } from "#kernel/secret.ts";

/** PEM texts. */
export interface Certificates {
  readonly ca: string;
  readonly cert: string;
  readonly key: Secret;
}

export type CertificateRole = "server" | "client";

export function certificateFiles(role: CertificateRole): { ca: string; cert: string; key: string } {
  return { ca: "ca-cert.pem", cert: `${role}-cert.pem`, key: `${role}-key.pem` };
}

/** The names that a certificate is for: its DNS names, or its common name where it has none (RFC 6125, 6.4.4). */
export function certificateNames({ subject, subjectaltname }: PeerCertificate): readonly string[] {
  const alternatives = (subjectaltname ?? "")
    .split(", ")
    .flatMap((entry) => (entry.startsWith("DNS:") ? [entry.slice("DNS:".length)] : []));
  if (alternatives.length > 0) return alternatives;
  const common: string | readonly string[] | undefined = subject?.CN;
  return typeof common === "string" ? [common] : [];
}

/** Whether the other side showed a certificate of our CA for one of the names. */
export function isCalledBy(socket: TLSSocket, names: readonly string[]): boolean {
  // Null where the other side is gone already.
  const certificate = socket.getPeerCertificate() as PeerCertificate | null;
  if (!socket.authorized || certificate === null) return false;
  return certificateNames(certificate).some((name) => names.includes(name));
}
