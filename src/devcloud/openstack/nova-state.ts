/** Servers' states in Nova's words, and the states of a resize, which the core has no word for. Source: nova/api/openstack/common.py. */
import type { Cloud } from "#devcloud/core/cloud.ts";
import type { ServerRecord } from "#devcloud/core/records.ts";
import { ApiError } from "./api-error.ts";
import { extraNumber, extraText } from "./dialect-extra.ts";

export interface NovaState {
  readonly status: string;
  readonly vm: string;
  readonly task: string | null;
  /** 0 no state, 1 running, 4 shut down. */
  readonly power: 0 | 1 | 4;
}

function plainState(server: ServerRecord): NovaState {
  switch (server.state) {
    case "pending":
      return server.boot === 1
        ? { status: "BUILD", vm: "building", task: "spawning", power: 0 }
        : { status: "SHUTOFF", vm: "stopped", task: "powering-on", power: 4 };
    case "running":
      return { status: "ACTIVE", vm: "active", task: null, power: 1 };
    case "stopping":
      return { status: "ACTIVE", vm: "active", task: "powering-off", power: 1 };
    case "stopped":
      return { status: "SHUTOFF", vm: "stopped", task: null, power: 4 };
    case "shutting-down":
      return { status: "ACTIVE", vm: "active", task: "deleting", power: 1 };
    case "terminated":
      return { status: "DELETED", vm: "deleted", task: null, power: 0 };
    case "failed":
      return { status: "ERROR", vm: "error", task: null, power: 0 };
  }
}

/** `resizedFrom` is the flavor before; it and the time of its end are kept until the resize is confirmed or reverted. */
export function novaState(cloud: Cloud, server: ServerRecord): NovaState {
  const plain = plainState(server);
  const settled = server.state === "running" || server.state === "stopped" || server.state === "pending";
  const until = extraNumber(server, "resizeUntil");
  if (until === undefined || !settled) return plain;
  const under = cloud.clock.now() < until || server.state === "pending";
  const reverted = extraText(server, "resizedFrom") === "";
  if (reverted)
    return under ? { ...plain, status: "REVERT_RESIZE", vm: "resized", task: "resize_reverting" } : plain;
  return under
    ? {
        ...plain,
        status: "RESIZE",
        vm: plain.vm === "stopped" ? "stopped" : "active",
        task: "resize_migrating",
      }
    : { ...plain, status: "VERIFY_RESIZE", vm: "resized", task: null };
}

/** The flavor that is shown: the old one until the resize is there. */
export function shownFlavor(cloud: Cloud, server: ServerRecord): string {
  const from = extraText(server, "resizedFrom");
  return from !== "" && novaState(cloud, server).status === "RESIZE" ? from : server.type;
}

/** Servers that Nova still knows. */
export function isKnown(server: ServerRecord): boolean {
  return server.state !== "terminated";
}

/** Refuses, as Nova does, what a server in this state does not take. */
export function requireState(
  cloud: Cloud,
  server: ServerRecord,
  action: string,
  allowed: readonly string[],
): void {
  const { status, vm, task } = novaState(cloud, server);
  if (!allowed.includes(status)) {
    throw new ApiError(409, `Cannot '${action}' instance ${server.id} while it is in vm_state ${vm}`);
  }
  if (task !== null) {
    throw new ApiError(409, `Cannot '${action}' instance ${server.id} while it is in task_state ${task}`);
  }
}
