// Certificates for machines that are apart: one CA, and a folder for each, with the names that QEMU looks for.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export interface Certified {
  /** Its folder, and the name in its certificates. */
  readonly name: string;
  /** Where it is reached. */
  readonly address: string;
}

export function certify(folder: string, machines: readonly Certified[]): void {
  const openssl = (...args: string[]): void =>
    void execFileSync("openssl", args, { cwd: folder, stdio: "ignore" });
  mkdirSync(folder, { recursive: true });
  const made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
  openssl("req", "-x509", ...made, "-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-subj", "/CN=test CA");
  for (const { name, address } of machines) {
    mkdirSync(join(folder, name), { recursive: true });
    copyFileSync(join(folder, "ca-cert.pem"), join(folder, name, "ca-cert.pem"));
    for (const role of ["server", "client"]) {
      const [key, cert, request] = ["key", "cert", "request"].map((what) => `${name}/${role}-${what}.pem`);
      const says = `${name}/${role}.cnf`;
      writeFileSync(
        join(folder, says),
        `subjectAltName=DNS:${name},IP:${address}\nextendedKeyUsage=${role}Auth\nkeyUsage=digitalSignature,keyEncipherment\n`,
      );
      openssl(
        "req",
        "-new",
        ...made.slice(0, 5),
        "-keyout",
        `${key}`,
        "-out",
        `${request}`,
        "-subj",
        `/CN=${name}`,
      );
      const ca = ["-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2"];
      openssl("x509", "-req", "-in", `${request}`, ...ca, "-extfile", says, "-out", `${cert}`);
      for (const file of [request, says]) rmSync(join(folder, `${file}`));
    }
  }
}
