/** POST /servers/{id}/action. Source: Compute API reference, "Servers - run an action". */
import { z } from "zod";
import { setPortGroups } from "#devcloud/core/ports.ts";
import {
  checkServerQuota,
  rebootServer,
  startServer,
  stopServer,
  terminateServer,
} from "#devcloud/core/servers.ts";
import type { ServerRecord } from "#devcloud/core/records.ts";
import { type Answer, empty, json } from "./answer.ts";
import { type Call, bodyOf, param, parsedBody } from "./api-call.ts";
import { ApiError, badRequest, quoted } from "./api-error.ts";
import { changedExtra, extraText } from "./dialect-extra.ts";
import { knownServer } from "./nova-server-body.ts";
import { requireState } from "./nova-state.ts";

type Action = (call: Call, server: ServerRecord) => Answer;

const rebootSchema = z.object({ reboot: z.object({ type: z.enum(["SOFT", "HARD", "soft", "hard"]) }) });

function reboot(call: Call, server: ServerRecord): Answer {
  const hard = bodyOf(call, rebootSchema).reboot.type.toUpperCase() === "HARD";
  requireState(call.cloud, server, "reboot", hard ? ["ACTIVE", "SHUTOFF", "ERROR"] : ["ACTIVE"]);
  if (server.state === "running") rebootServer(call.cloud, server.id);
  else startServer(call.cloud, server.id);
  return empty(202);
}

const resizeSchema = z.object({
  resize: z.object({
    flavorRef: z.union([z.string(), z.number()]),
    "OS-DCF:diskConfig": z.string().optional(),
  }),
});

/** The machine starts anew on its new size, if it runs. */
function withType(call: Call, server: ServerRecord, type: string, resizedFrom: string): void {
  const now = call.cloud.clock.now();
  call.cloud.data.tables.server.put({
    ...server,
    type,
    boot: server.state === "running" ? server.boot + 1 : server.boot,
    extra: changedExtra(server, now, { resizedFrom, resizeUntil: now + call.openstack.resizeMs }),
  });
}

function resize(call: Call, server: ServerRecord): Answer {
  const ref = String(bodyOf(call, resizeSchema).resize.flavorRef);
  const { types } = call.cloud.catalog;
  const wanted = types.find(({ id }) => id === ref);
  if (wanted === undefined) throw badRequest(`Flavor ${quoted(ref)} could not be found.`);
  requireState(call.cloud, server, "resize", ["ACTIVE", "SHUTOFF"]);
  if (wanted.id === server.type) throw badRequest("When resizing, instances must change flavor!");
  const before = types.find(({ id }) => id === server.type)?.vcpus ?? 0;
  // Its own present vCPUs come free: only a larger type can go beyond the quota.
  if (wanted.vcpus > before) checkServerQuotaForGrowth(call, wanted.id, before, server);
  withType(call, server, wanted.id, server.type);
  return empty(202);
}

function checkServerQuotaForGrowth(call: Call, type: string, held: number, server: ServerRecord): void {
  const { cloud } = call;
  const { quotas } = cloud;
  const free = server.state === "running" ? held : 0;
  cloud.quotas = { ...quotas, vcpus: quotas.vcpus + free, servers: quotas.servers + 1 };
  try {
    checkServerQuota(cloud, type, 1);
  } finally {
    cloud.quotas = quotas;
  }
}

function requireResized(call: Call, server: ServerRecord, action: string): string {
  requireState(call.cloud, server, action, ["VERIFY_RESIZE"]);
  return extraText(server, "resizedFrom");
}

function confirmResize(call: Call, server: ServerRecord): Answer {
  requireResized(call, server, "confirmResize");
  const { resizedFrom: _from, resizeUntil: _until, ...rest } = server.extra;
  call.cloud.data.tables.server.put({
    ...server,
    extra: changedExtra({ extra: rest }, call.cloud.clock.now()),
  });
  return empty(204);
}

function revertResize(call: Call, server: ServerRecord): Answer {
  withType(call, server, requireResized(call, server, "revertResize"), "");
  return empty(202);
}

const groupSchema = z.object({ name: z.string() });

function groupAction(name: "addSecurityGroup" | "removeSecurityGroup"): Action {
  const schema = z.looseObject({ [name]: groupSchema }) as unknown as z.ZodType<
    Record<string, { name: string }>
  >;
  return (call, server) => {
    const asked = bodyOf(call, schema)[name]?.name ?? "";
    const { group, port: ports } = call.cloud.data.tables;
    const found = group.get(asked) ?? group.by("name", `/${asked}`)[0];
    if (found === undefined) throw new ApiError(404, `Security group ${quoted(asked)} not found.`);
    for (const port of server.portIds.flatMap((id) => ports.get(id) ?? [])) {
      const others = port.groupIds.filter((id) => id !== found.id);
      if (name === "removeSecurityGroup" && others.length === port.groupIds.length) {
        throw new ApiError(
          404,
          `Security group ${quoted(asked)} not associated with the instance ${server.id}`,
        );
      }
      setPortGroups(call.cloud, port.id, name === "addSecurityGroup" ? [...others, found.id] : others);
    }
    return empty(202);
  };
}

const consoleSchema = z.object({
  "os-getConsoleOutput": z
    .object({ length: z.union([z.number(), z.string().regex(/^-?[0-9]{1,9}$/)]).nullish() })
    .nullable(),
});

function consoleOutput(call: Call, server: ServerRecord): Answer {
  const asked = bodyOf(call, consoleSchema)["os-getConsoleOutput"]?.length ?? null;
  if (server.state === "pending" && server.boot === 1) {
    throw new ApiError(409, `Instance ${server.id} is not ready`);
  }
  const text = call.openstack.compute.console(server.id).toString("utf8");
  const length = asked === null ? -1 : Number(asked);
  const output = length < 0 ? text : length === 0 ? "" : text.trimEnd().split("\n").slice(-length).join("\n");
  return json(200, { output });
}

const actions: ReadonlyMap<string, Action> = new Map<string, Action>([
  [
    "os-start",
    (call, server) => {
      requireState(call.cloud, server, "start", ["SHUTOFF"]);
      startServer(call.cloud, server.id);
      return empty(202);
    },
  ],
  [
    "os-stop",
    (call, server) => {
      requireState(call.cloud, server, "stop", ["ACTIVE", "ERROR"]);
      stopServer(call.cloud, server.id);
      return empty(202);
    },
  ],
  ["reboot", reboot],
  ["resize", resize],
  ["confirmResize", confirmResize],
  ["revertResize", revertResize],
  ["addSecurityGroup", groupAction("addSecurityGroup")],
  ["removeSecurityGroup", groupAction("removeSecurityGroup")],
  ["os-getConsoleOutput", consoleOutput],
  [
    "forceDelete",
    (call, server) => {
      terminateServer(call.cloud, server.id);
      return empty(202);
    },
  ],
]);

/** The action that a body names; undefined for none that this cloud has. For faults, limits and counters too. */
export function actionName(body: unknown): string | undefined {
  if (typeof body !== "object" || body === null) return undefined;
  return Object.keys(body).find((key) => actions.has(key));
}

export function postAction(call: Call): Answer {
  const body = parsedBody(call);
  const name = actionName(body);
  const action = name === undefined ? undefined : actions.get(name);
  const server = knownServer(call.cloud, param(call));
  if (action === undefined) {
    const asked = typeof body === "object" && body !== null ? Object.keys(body)[0] : undefined;
    throw badRequest(`There is no such action: ${quoted(asked ?? "")}`);
  }
  return action(call, server);
}
