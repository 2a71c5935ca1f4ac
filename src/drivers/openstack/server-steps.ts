/** What takes a server from one state to another: power and type, each resumable after an interruption. */
import { OperationalError, isOperational } from "#kernel/errors.ts";
import { serverResponseSchema } from "#wire/openstack/nova.ts";
import type { NovaServer } from "#wire/openstack/nova.ts";
import type { Calls } from "./calls.ts";

export async function findServer(id: string, calls: Calls): Promise<NovaServer | undefined> {
  return (await calls.find("compute", `/servers/${id}`, serverResponseSchema))?.server;
}

function failed(server: NovaServer): OperationalError {
  const why = server.fault?.message || "the cloud gives no reason";
  return new OperationalError("cloud.refused", `server ${server.id} is in ERROR: ${why}`, {
    outcome: "unknown",
  });
}

async function needServer(id: string, calls: Calls): Promise<NovaServer> {
  const server = await findServer(id, calls);
  if (server === undefined) throw new OperationalError("cloud.not_found", `there is no server ${id}`);
  if (server.status === "ERROR") throw failed(server);
  return server;
}

const restingStates = new Set(["ACTIVE", "SHUTOFF", "PAUSED", "SUSPENDED", "VERIFY_RESIZE"]);

/** The server once Nova does nothing with it: a state in which it takes orders. */
export async function restingServer(id: string, calls: Calls): Promise<NovaServer> {
  return calls.until(async () => {
    const server = await needServer(id, calls);
    const busy = Boolean(server["OS-EXT-STS:task_state"]) || !restingStates.has(server.status);
    return busy ? undefined : server;
  });
}

/** Orders are refused with 409 while another one is under way; then the state is looked at again. */
async function order(id: string, body: Readonly<Record<string, unknown>>, calls: Calls): Promise<void> {
  try {
    await calls.act("POST", "compute", `/servers/${id}/action`, body);
  } catch (error) {
    if (!isOperational(error, "cloud.conflict")) throw error;
  }
}

export async function setPower(id: string, power: "running" | "stopped", calls: Calls): Promise<void> {
  const wanted = power === "running" ? "ACTIVE" : "SHUTOFF";
  for (;;) {
    const server = await restingServer(id, calls);
    if (server.status === wanted) return;
    if (server.status === "VERIFY_RESIZE") await order(id, { confirmResize: null }, calls);
    else if (server.status === "PAUSED") await order(id, { unpause: null }, calls);
    else if (server.status === "SUSPENDED") await order(id, { resume: null }, calls);
    else await order(id, power === "running" ? { "os-start": null } : { "os-stop": null }, calls);
    await calls.until(async () =>
      (await needServer(id, calls)).status === server.status ? undefined : true,
    );
  }
}

export interface FlavorRef {
  readonly id: string;
  readonly name: string;
}

function hasFlavor(server: NovaServer, flavor: FlavorRef): boolean {
  return server.flavor?.original_name === flavor.name || server.flavor?.id === flavor.id;
}

/**
 * Resize and its confirmation, for running and stopped servers. An interrupted one is taken up where it stands:
 * what waits for a confirmation is confirmed, whichever type it went to, then the wanted type is asked for if it is not there.
 */
export async function resize(id: string, flavor: FlavorRef, calls: Calls): Promise<void> {
  for (;;) {
    const server = await restingServer(id, calls);
    if (server.status === "VERIFY_RESIZE") {
      await order(id, { confirmResize: null }, calls);
      await calls.until(async () =>
        (await needServer(id, calls)).status === "VERIFY_RESIZE" ? undefined : true,
      );
      continue;
    }
    if (hasFlavor(server, flavor)) return;
    // Its own refusals (quota, no room) are the caller's to know; a conflict means that its state moved meanwhile.
    await order(id, { resize: { flavorRef: flavor.id } }, calls);
    const after = await restingServer(id, calls);
    if (after.status !== "VERIFY_RESIZE" && !hasFlavor(after, flavor)) {
      const why = after.fault?.message ?? "it kept its type";
      throw new OperationalError("cloud.refused", `the cloud did not resize server ${id}: ${why}`);
    }
  }
}

/** For a moment a server is DELETED and still known, with its attachments; a cloud may show it so for good. */
const deletedLooks = 20;

/** Returns when Nova no longer knows the server. */
export async function deleteServer(id: string, calls: Calls): Promise<void> {
  if (!(await calls.remove("compute", `/servers/${id}`))) return;
  let forced = false;
  let deleted = 0;
  await calls.until(async () => {
    const server = await findServer(id, calls);
    if (server === undefined) return true;
    if (server.status === "DELETED") {
      deleted += 1;
      return deleted < deletedLooks ? undefined : true;
    }
    // Clouds that keep deleted servers for a while still count them in quotas.
    if (server.status === "SOFT_DELETED" && !forced) {
      forced = true;
      await order(id, { forceDelete: null }, calls);
    }
    return undefined;
  });
}
