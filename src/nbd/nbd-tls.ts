/**
 * TLS for both sides: x509 certificates, pre-shared keys, or both. TLS 1.2 at least. A connection counts as authenticated when the
 * client showed a certificate of the CA that was named, or knew a key.
 */
import { isIP, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { connect, createSecureContext, createServer, type TLSSocket } from "node:tls";
import { OperationalError } from "#kernel/errors.ts";
import type { Secret } from "#kernel/secret.ts";
import { isCalledBy } from "#wire/tls/certificates.ts";

/** PEM texts. */
export interface NbdCertificate {
  readonly cert: string;
  readonly key: Secret;
}

export interface NbdServerTls {
  /** `required`: nothing is said in the clear. `optional`: what a peer in the clear may do is what `NbdAccess` says. */
  readonly mode: "optional" | "required";
  readonly certificate?: NbdCertificate;
  /** PEM of the CA whose clients are let in. Without it a certificate connection is encrypted but not authenticated. */
  readonly clientCa?: string;
  /** Of those, the ones whose certificate is for one of these names. Without it, all. */
  readonly clientNames?: readonly string[];
  /** The key of an identity, in hex; undefined for an unknown one. */
  readonly pskOf?: (identity: string) => Secret | undefined;
}

export interface NbdClientTls {
  /** PEM of the CA that the server's certificate must come from. Without it, and without a key, the machine's own CAs. */
  readonly ca?: string;
  readonly certificate?: NbdCertificate;
  /** The name that the server's certificate must carry. Default: the host connected to, or `localhost`. */
  readonly serverName?: string;
  /** Key in hex. With it no certificates are used. */
  readonly psk?: { readonly identity: string; readonly key: Secret };
}

/** Key exchanges with a pre-shared key, those with forward secrecy first. OpenSSL leaves them out by default. */
const pskCiphers =
  "ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384:DHE-PSK-AES128-GCM-SHA256:PSK-AES256-GCM-SHA384:PSK-AES128-GCM-SHA256";
const certificateCiphers =
  "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256";
const tls13Ciphers = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";

/** Whoever reads the stream hears of its failures; between two readers nobody does, and the process must not end for that. */
const ignore = (): void => {};

/** Errors: `config.invalid` where certificate, key and CA do not go together. */
export function checkTls({ certificate, clientCa }: NbdServerTls): void {
  try {
    createSecureContext({
      ...(certificate && { cert: certificate.cert, key: certificate.key.reveal() }),
      ...(clientCa !== undefined && { ca: clientCa }),
    });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new OperationalError("config.invalid", `the certificate and its key do not work: ${why}`, {
      cause,
    });
  }
}

/**
 * The server's half of the TLS handshake over a connection.
 * @throws OperationalError `auth.invalid` when it fails; the connection is destroyed then. `aborted` with the signal.
 */
export function acceptTls(
  stream: Duplex,
  tls: NbdServerTls,
  signal: AbortSignal,
): Promise<{ readonly stream: TLSSocket; readonly authenticated: boolean }> {
  let identity: string | undefined;
  const { pskOf } = tls;
  // A server that never listens: the documented way to run the server's half over a stream that is there already.
  const server = createServer({
    ALPNProtocols: [],
    minVersion: "TLSv1.2",
    requestCert: tls.clientCa !== undefined,
    rejectUnauthorized: tls.clientCa !== undefined,
    ciphers: [tls13Ciphers, certificateCiphers, ...(pskOf === undefined ? [] : [pskCiphers])].join(":"),
    ...(tls.certificate && { cert: tls.certificate.cert, key: tls.certificate.key.reveal() }),
    ...(tls.clientCa !== undefined && { ca: tls.clientCa }),
    ...(pskOf !== undefined && {
      pskIdentityHint: "understudy",
      pskCallback: (_socket: TLSSocket, asked: string) => {
        const key = pskOf(asked);
        if (key === undefined) return null;
        identity = asked;
        return Buffer.from(key.reveal(), "hex");
      },
    }),
  });
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => {
      stream.destroy();
      reject(
        signal.aborted
          ? (signal.reason as Error)
          : new OperationalError("auth.invalid", "the TLS handshake with the NBD client failed", {
              cause: error,
            }),
      );
    };
    const onAbort = (): void => fail(signal.reason as Error);
    const onClose = (): void => fail(new Error("the client closed the connection"));
    signal.addEventListener("abort", onAbort, { once: true });
    stream.once("close", onClose);
    server.once("tlsClientError", fail);
    server.once("secureConnection", (secured) => {
      signal.removeEventListener("abort", onAbort);
      stream.off("close", onClose);
      secured.on("error", ignore);
      const { clientCa, clientNames } = tls;
      const named = clientNames === undefined || isCalledBy(secured, clientNames);
      const certified = clientCa !== undefined && secured.authorized && named;
      resolve({ stream: secured, authenticated: identity !== undefined || certified });
    });
    server.emit("connection", stream as Socket);
  });
}

/**
 * The client's half. The server is always verified: by its certificate, or by its knowing the key.
 * @throws OperationalError `auth.invalid`; the connection is destroyed then. `aborted` with the signal.
 */
export function connectTls(
  stream: Duplex,
  tls: NbdClientTls,
  host: string,
  signal: AbortSignal,
): Promise<TLSSocket> {
  const { psk } = tls;
  return new Promise((resolve, reject) => {
    const secured = connect({
      socket: stream,
      minVersion: "TLSv1.2",
      rejectUnauthorized: true,
      ...(psk === undefined
        ? nameOf(tls.serverName ?? host)
        : {
            ciphers: `${tls13Ciphers}:${pskCiphers}`,
            pskCallback: () => ({ identity: psk.identity, psk: Buffer.from(psk.key.reveal(), "hex") }),
            // There is no certificate to look at: the server has shown that it knows the key.
            checkServerIdentity: () => undefined,
          }),
      ...(tls.ca !== undefined && { ca: tls.ca }),
      ...(tls.certificate && { cert: tls.certificate.cert, key: tls.certificate.key.reveal() }),
    });
    const fail = (error: Error): void => {
      secured.destroy();
      stream.destroy();
      reject(
        signal.aborted
          ? (signal.reason as Error)
          : new OperationalError(
              "auth.invalid",
              `the TLS handshake with the NBD server failed: ${error.message}`,
              {
                cause: error,
              },
            ),
      );
    };
    const onAbort = (): void => fail(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
    secured.once("error", fail);
    secured.once("secureConnect", () => {
      secured.on("error", ignore);
      secured.off("error", fail);
      signal.removeEventListener("abort", onAbort);
      resolve(secured);
    });
  });
}

/** An address is no name to send along (RFC 6066, 3); it is looked for in the certificate all the same. */
function nameOf(host: string): { readonly host: string; readonly servername?: string } {
  return isIP(host) === 0 ? { host, servername: host } : { host };
}
