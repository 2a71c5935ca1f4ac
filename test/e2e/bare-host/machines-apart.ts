// Certificates for machines that are apart, made as the guide says.
import { execFileSync } from "node:child_process";

const script = new URL("../../../script/certify", import.meta.url).pathname;

/** One CA in the folder, and a folder in it for each machine, which is reached at 127.0.0.1. */
export function certify(folder: string, machines: readonly string[]): void {
  for (const name of machines) execFileSync(script, [folder, name, "127.0.0.1"]);
}
