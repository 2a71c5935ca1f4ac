import { isOperational } from "#kernel/errors.ts";
import type { QmpExecutor } from "./block-jobs.ts";
import { credentialsOf } from "./plan-nbd.ts";

/** What QEMU showed for the node, which is gone; there is nothing for one without TLS. */
export async function removeCredentials(qmp: QmpExecutor, node: string, signal: AbortSignal): Promise<void> {
  try {
    await qmp.execute("object-del", { id: credentialsOf(node) }, signal);
  } catch (error) {
    if (!isOperational(error, "machine.refused")) throw error;
  }
}
