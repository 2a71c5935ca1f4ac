/** What an NBD address says of TLS, with the files it names. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { OperationalError } from "#kernel/errors.ts";
import { Secret } from "#kernel/secret.ts";
import type { NbdUri } from "#wire/nbd/nbd-uri.ts";
import type { NbdClientTls } from "./nbd-tls.ts";

/**
 * Undefined for an address without TLS. A folder of certificates has libnbd's names: `ca-cert.pem`, and `client-cert.pem` with
 * `client-key.pem` where the server wants to know its clients. A file of keys has lines `IDENTITY:HEX`.
 * @throws OperationalError `input.invalid` where a file is missing or has no key for the identity.
 */
export async function loadClientTls(uri: NbdUri): Promise<NbdClientTls | undefined> {
  if (!uri.tls) return undefined;
  const name = uri.tlsHostname === undefined ? {} : { serverName: uri.tlsHostname };
  if (uri.tlsPskFile !== undefined) return { ...name, psk: await pskOf(uri.tlsPskFile, uri.username) };
  const folder = uri.tlsCertificates;
  if (folder === undefined) return name;
  const ca = await textOf(join(folder, "ca-cert.pem"));
  const cert = await textOf(join(folder, "client-cert.pem"), "optional");
  if (cert === undefined) return { ...name, ca };
  return {
    ...name,
    ca,
    certificate: { cert, key: new Secret(await textOf(join(folder, "client-key.pem"))) },
  };
}

async function pskOf(path: string, username: string | undefined): Promise<NonNullable<NbdClientTls["psk"]>> {
  const identity = username ?? "";
  if (identity === "")
    throw new OperationalError("input.invalid", "an NBD address with keys needs a user: nbds://USER@HOST/");
  const line = (await textOf(path)).split("\n").find((text) => text.startsWith(`${identity}:`));
  const key = line?.slice(identity.length + 1).trim() ?? "";
  if (!/^([0-9a-f]{2}){16,}$/i.test(key))
    throw new OperationalError(
      "input.invalid",
      `${path} has no key of 16 bytes or more, in hex, for ${identity}`,
    );
  return { identity, key: new Secret(key) };
}

async function textOf(path: string): Promise<string>;
async function textOf(path: string, need: "optional"): Promise<string | undefined>;
async function textOf(path: string, need?: "optional"): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (need === "optional" && (error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new OperationalError("input.invalid", `cannot read ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
