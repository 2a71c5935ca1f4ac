/** For tests: other people's NBD programs, certificates for them, and a server of ours to point them at. */
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { readFile } from "node:fs/promises";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import type { ExportProvider } from "#nbd/export-provider.ts";
import { type NbdServer, type NbdServerOptions, startNbdServer } from "#nbd/nbd-server.ts";

export const debian = {
  nbdinfo: "libnbd-bin",
  nbdcopy: "libnbd-bin",
  nbdkit: "nbdkit",
  "qemu-img": "qemu-utils",
  "qemu-io": "qemu-utils",
  "qemu-nbd": "qemu-utils",
  fio: "fio",
  openssl: "openssl",
} as const;

export interface Ended {
  readonly code: number | null;
  readonly output: string;
  readonly errors: string;
}

/** Runs a client to its end; rejects when it takes longer than a minute. */
export function runClient(program: string, ...args: string[]): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      timeout: 60_000,
      killSignal: "SIGKILL",
    });
    let output = "";
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
    child.once("error", reject);
    child.once("close", (code, signal) => {
      if (signal === "SIGKILL")
        reject(new Error(`${program} ${args.join(" ")} hangs:\n${output}\n${errors}`));
      else resolve({ code, output, errors });
    });
  });
}

/** The same, and it must succeed. */
export async function succeed(program: string, ...args: string[]): Promise<string> {
  const { code, output, errors } = await runClient(program, ...args);
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}:\n${output}\n${errors}`);
  return output;
}

export function workFolder(): {
  readonly path: string;
  readonly file: (name: string) => string;
} & Disposable {
  const path = mkdtempSync(join(tmpdir(), "understudy-nbd-"));
  return {
    path,
    file: (name) => join(path, name),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  };
}

export const ports = { clock: systemClock, random: systemRandom, log: silentLog };

export async function serveOn(
  path: string,
  provider: ExportProvider,
  options: Partial<NbdServerOptions> = {},
): Promise<NbdServer & { readonly uri: string }> {
  const server = await startNbdServer({ listen: { kind: "unix", path }, provider, ...ports, ...options });
  const scheme = options.tls === undefined ? "nbd" : "nbds";
  return Object.assign(server, { uri: `${scheme}+unix:///disk?socket=${path}` });
}

const run = promisify(execFile);

/** A CA, and a server's and a client's certificate of it, named as libnbd, nbdkit and QEMU want them; a stranger's own besides. */
export async function makeCertificates(folder: string) {
  const path = (name: string): string => join(folder, name);
  const request = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const selfSigned = async (name: string, subject: string): Promise<void> => {
    const files = ["-keyout", path(`${name}-key.pem`), "-out", path(`${name}-cert.pem`)];
    await run("openssl", [...request, "-x509", "-days", "2", "-subj", `/CN=${subject}`, ...files]);
  };
  await selfSigned("ca", "test CA");
  await selfSigned("stranger", "stranger");
  for (const [name, usage] of [
    ["server", "serverAuth"],
    ["client", "clientAuth"],
  ] as const) {
    const files = ["-keyout", path(`${name}-key.pem`), "-out", path(`${name}.csr`)];
    await run("openssl", [...request, "-subj", "/CN=localhost", ...files]);
    const extensions = `subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=${usage}\nkeyUsage=digitalSignature\n`;
    writeFileSync(path(`${name}.ext`), extensions);
    const ca = ["-CA", path("ca-cert.pem"), "-CAkey", path("ca-key.pem"), "-CAcreateserial"];
    const to = ["-days", "2", "-extfile", path(`${name}.ext`), "-out", path(`${name}-cert.pem`)];
    await run("openssl", ["x509", "-req", "-in", path(`${name}.csr`), ...ca, ...to]);
  }
  const read = (name: string): string => readFileSync(path(name), "utf8");
  const pair = (name: string) => ({
    cert: read(`${name}-cert.pem`),
    key: new Secret(read(`${name}-key.pem`)),
  });
  return {
    folder,
    ca: read("ca-cert.pem"),
    server: pair("server"),
    client: pair("client"),
    stranger: pair("stranger"),
  };
}

/** A file of one pre-shared key, as GnuTLS's `psktool` makes it. */
export function makePsk(folder: string): {
  readonly file: string;
  readonly identity: string;
  readonly key: Secret;
} {
  const identity = "alice";
  const key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
  const file = join(folder, "keys.psk");
  writeFileSync(file, `${identity}:${key}\n`, { mode: 0o600 });
  return { file, identity, key: new Secret(key) };
}

/** Bytes that no two blocks share, with holes in between. */
export function patternedDisk(sizeBytes: number): Buffer {
  const disk = Buffer.alloc(sizeBytes);
  for (let at = 0; at + 8 <= sizeBytes; at += 8)
    if (Math.floor(at / 262_144) % 3 !== 1) disk.writeBigUInt64LE(BigInt(at) * 2_654_435_761n + 1n, at);
  return disk;
}

/**
 * Whether the server takes connections: its socket's file is there a moment earlier than that. The kernel's own list tells, since a
 * connection made to find out would be a client's for some servers. https://docs.kernel.org/networking/af_unix: state 01, flag 00010000.
 */
export async function isListening(path: string): Promise<boolean> {
  const sockets = await readFile("/proc/net/unix", "utf8");
  return sockets
    .split("\n")
    .some((line) => line.endsWith(` ${path}`) && line.split(/\s+/u)[3] === "00010000");
}
