/** Listing, showing, renaming and deleting servers. */
import { z } from "zod";
import { terminateServer } from "#devcloud/core/servers.ts";
import type { ServerRecord } from "#devcloud/core/records.ts";
import { type Answer, empty, json } from "./answer.ts";
import { type Call, type Route, bodyOf, param } from "./api-call.ts";
import { changedExtra, extraText, extraTexts } from "./dialect-extra.ts";
import { markerPage, nextLinks } from "./marker-page.ts";
import { postAction } from "./nova-server-actions.ts";
import { addressesOf, computeLinks, groupNames, knownServer, serverBody } from "./nova-server-body.ts";
import { postServer } from "./nova-server-create.ts";
import { isKnown, novaState } from "./nova-state.ts";

/** Nova reads `name` and `ip` as regular expressions of its database; here they are texts, with `^` and `$` at the ends. */
function textFilter(pattern: string): (text: string) => boolean {
  const anchoredStart = pattern.startsWith("^");
  const anchoredEnd = pattern.endsWith("$");
  const text = pattern.slice(anchoredStart ? 1 : 0, anchoredEnd ? -1 : undefined).replaceAll("\\", "");
  return (value) => {
    if (anchoredStart && anchoredEnd) return value === text;
    if (anchoredStart) return value.startsWith(text);
    return anchoredEnd ? value.endsWith(text) : value.includes(text);
  };
}

type Test = (server: ServerRecord) => boolean;

function tagTest(name: string, value: string): Test {
  const wanted = value.split(",");
  return (server) => {
    const tags = extraTexts(server, "novaTags");
    switch (name) {
      case "tags":
        return wanted.every((tag) => tags.includes(tag));
      case "tags-any":
        return wanted.some((tag) => tags.includes(tag));
      case "not-tags":
        return !wanted.every((tag) => tags.includes(tag));
      default:
        return !wanted.some((tag) => tags.includes(tag));
    }
  };
}

/** Undefined: a parameter that is no filter, or that only administrators have, which Nova ignores. */
function testOf(call: Call, name: string, value: string): Test | undefined {
  const { cloud } = call;
  switch (name) {
    case "name": {
      const fits = textFilter(value);
      return (server) => fits(server.name);
    }
    case "ip": {
      const fits = textFilter(value);
      return (server) => server.portIds.some((id) => fits(cloud.data.tables.port.get(id)?.privateIp ?? ""));
    }
    case "status": {
      const wanted = call.query.getAll("status").map((status) => status.toUpperCase());
      return (server) => wanted.includes(novaState(cloud, server).status);
    }
    case "flavor":
      return (server) => server.type === value;
    case "image":
      return (server) => server.imageId === value;
    case "uuid":
      return (server) => server.id === value;
    case "key_name":
      return (server) => server.keyName === value;
    case "availability_zone":
      return (server) => server.zone === value;
    case "changes-since": {
      const since = Date.parse(value);
      return (server) => !(Math.max(server.stateSince, server.createdAt) < since);
    }
    case "tags":
    case "tags-any":
    case "not-tags":
    case "not-tags-any":
      return tagTest(name, value);
    default:
      return undefined;
  }
}

function listServers(detail: boolean): (call: Call) => Answer {
  return (call) => {
    const tests = [...call.query].flatMap(([name, value]) => testOf(call, name, value) ?? []);
    const keep: Test = (server) => isKnown(server) && tests.every((test) => test(server));
    // Newest first, as Nova.
    const all = [...call.cloud.data.tables.server.values()].reverse();
    const { items, next } = markerPage(call, all, keep);
    const path = `/servers${detail ? "/detail" : ""}`;
    return json(200, {
      servers: items.map((server) =>
        detail
          ? serverBody(call, server)
          : { id: server.id, name: server.name, links: computeLinks(call, `/servers/${server.id}`) },
      ),
      ...nextLinks("servers", `${call.base}/compute/v2.1${path}`, next),
    });
  };
}

const updateSchema = z.object({
  server: z.strictObject({
    name: z.string().min(1).max(255).optional(),
    description: z.string().max(255).nullish(),
    accessIPv4: z.literal("").optional(),
    accessIPv6: z.literal("").optional(),
    "OS-DCF:diskConfig": z.string().optional(),
  }),
});

function putServer(call: Call): Answer {
  const { server: set } = bodyOf(call, updateSchema);
  const server = knownServer(call.cloud, param(call));
  const changed = call.cloud.data.tables.server.put({
    ...server,
    name: set.name ?? server.name,
    extra: changedExtra(server, call.cloud.clock.now(), {
      description: set.description === undefined ? extraText(server, "description") : (set.description ?? ""),
    }),
  });
  return json(200, { server: serverBody(call, changed) });
}

function deleteServer(call: Call): Answer {
  terminateServer(call.cloud, knownServer(call.cloud, param(call)).id);
  return empty(204);
}

function listInterfaces(call: Call): Answer {
  const server = knownServer(call.cloud, param(call));
  const { port: ports } = call.cloud.data.tables;
  return json(200, {
    interfaceAttachments: server.portIds.flatMap((id) => {
      const port = ports.get(id);
      if (port === undefined) return [];
      return {
        port_state: server.state === "running" ? "ACTIVE" : "DOWN",
        fixed_ips: [{ subnet_id: port.subnetId, ip_address: port.privateIp }],
        port_id: port.id,
        net_id: port.networkId,
        mac_addr: port.mac,
      };
    }),
  });
}

function listServerGroups(call: Call): Answer {
  const server = knownServer(call.cloud, param(call));
  const names = groupNames(call.cloud, server);
  return json(200, { security_groups: names.map(({ name }) => ({ name, rules: [] })) });
}

const service = "compute" as const;
export const serverRoutes: readonly Route[] = [
  { service, method: "GET", path: "/servers/detail", handler: listServers(true) },
  { service, method: "GET", path: "/servers", handler: listServers(false) },
  { service, method: "POST", path: "/servers", handler: postServer },
  {
    service,
    method: "GET",
    path: "/servers/{id}",
    handler: (call) => json(200, { server: serverBody(call, knownServer(call.cloud, param(call))) }),
  },
  { service, method: "PUT", path: "/servers/{id}", handler: putServer },
  { service, method: "DELETE", path: "/servers/{id}", handler: deleteServer },
  { service, method: "POST", path: "/servers/{id}/action", handler: postAction },
  {
    service,
    method: "GET",
    path: "/servers/{id}/ips",
    handler: (call) =>
      json(200, { addresses: addressesOf(call.cloud, knownServer(call.cloud, param(call))) }),
  },
  { service, method: "GET", path: "/servers/{id}/os-interface", handler: listInterfaces },
  { service, method: "GET", path: "/servers/{id}/os-security-groups", handler: listServerGroups },
];
