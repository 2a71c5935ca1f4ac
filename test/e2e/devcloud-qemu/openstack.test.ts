/** Real guests behind the OpenStack dialect, through plain calls. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { get, type Ready, servesFrom, skip, Stage, until } from "./stage.ts";

interface Client {
  /** The value of the answer's only key; the answer itself where it has none. */
  readonly call: (
    method: string,
    path: string,
    body?: unknown,
  ) => Promise<Record<string, unknown> & { id: string }>;
  readonly projectId: string;
}

async function clientOf({ endpoint, accessKeyId: user, secretAccessKey: password }: Ready): Promise<Client> {
  const domain = { name: "Default" };
  const login = await fetch(`${endpoint}/identity/v3/auth/tokens`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      auth: {
        identity: { methods: ["password"], password: { user: { name: user, domain, password } } },
        scope: { project: { name: user, domain } },
      },
    }),
  });
  const { token } = (await login.json()) as { token: { project: { id: string } } };
  const headers = {
    "content-type": "application/json",
    "x-auth-token": login.headers.get("x-subject-token") ?? "",
  };
  return {
    projectId: token.project.id,
    call: async (method, path, body) => {
      const answer = await fetch(`${endpoint}${path}`, {
        method,
        headers,
        ...(body !== undefined && { body: JSON.stringify(body) }),
      });
      const text = await answer.text();
      assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
      if (text === "") return { id: "" };
      return Object.values(JSON.parse(text) as object)[0] as Record<string, unknown> & { id: string };
    },
  };
}

const neutron = "/networking/v2.0";
const servers = "/compute/v2.1/servers";

/** A network with a way out, and a group that lets TCP 80 in; gives the network's id and the outer one's. */
async function makeNetwork({ call }: Client): Promise<{ network: string; outside: string }> {
  const [outer] = (await call("GET", `${neutron}/networks?router:external=true`)) as unknown as {
    id: string;
  }[];
  const outside = outer?.id ?? "";
  const { id: network } = await call("POST", `${neutron}/networks`, { network: { name: "app" } });
  const subnet = await call("POST", `${neutron}/subnets`, {
    subnet: { network_id: network, cidr: "10.9.0.0/24", ip_version: 4 },
  });
  const router = await call("POST", `${neutron}/routers`, {
    router: { name: "app", external_gateway_info: { network_id: outside } },
  });
  await call("PUT", `${neutron}/routers/${router.id}/add_router_interface`, { subnet_id: subnet.id });
  const group = await call("POST", `${neutron}/security-groups`, { security_group: { name: "web" } });
  const port = { protocol: "tcp", port_range_min: 80, port_range_max: 80 };
  await call("POST", `${neutron}/security-group-rules`, {
    security_group_rule: { security_group_id: group.id, direction: "ingress", ...port },
  });
  return { network, outside };
}

async function boot({ call }: Client, network: string, userData: string): Promise<string> {
  const [image] = (await call("GET", "/image/v2/images?name=understudy/guest")) as unknown as {
    id: string;
  }[];
  const { id } = await call("POST", servers, {
    server: {
      name: "web",
      flavorRef: "1",
      imageRef: image?.id,
      networks: [{ uuid: network }],
      security_groups: [{ name: "web" }],
      user_data: Buffer.from(userData).toString("base64"),
    },
  });
  return id;
}

async function active({ call }: Client, id: string, signal: AbortSignal): Promise<void> {
  await until(async () => {
    const server = await call("GET", `${servers}/${id}`);
    assert.notEqual(server["status"], "ERROR", JSON.stringify(server["fault"]));
    return server["status"] === "ACTIVE";
  }, signal);
}

async function floatingAddress({ call }: Client, outside: string, server: string): Promise<string> {
  const ports = (await call("GET", `${neutron}/ports?device_id=${server}`)) as unknown as { id: string }[];
  const address = await call("POST", `${neutron}/floatingips`, {
    floatingip: { floating_network_id: outside, port_id: ports[0]?.id },
  });
  return String(address["floating_ip_address"]);
}

test(
  "a server serves from its volume at its floating address, over restarts of its cloud",
  { skip, timeout: 300_000 },
  async (t) => {
    const { signal } = t;
    await using stage = new Stage("openstack", "127.84.0.0/16", 2 * 168);
    let client = await clientOf(await stage.start());
    const { network, outside } = await makeNetwork(client);
    const { id: volume } = await client.call("POST", `/volume/v3/${client.projectId}/volumes`, {
      volume: { size: 1 },
    });
    const serial = volume.slice(0, 20);
    const first = await boot(client, network, servesFrom(serial, "first"));
    const second = await boot(client, network, servesFrom(serial, "second"));
    await active(client, first, signal);
    const attach = (server: string): Promise<unknown> =>
      client.call("POST", `${servers}/${server}/os-volume_attachments`, {
        volumeAttachment: { volumeId: volume },
      });
    await attach(first);
    const address = await floatingAddress(client, outside, first);
    assert.equal(await get(`http://${address}/cgi-bin/lines`, signal), "first");
    await active(client, second, signal);

    const pids = [stage.guestPid(first), stage.guestPid(second)];
    await stage.end("SIGKILL");
    client = await clientOf(await stage.again());
    await get(`http://${address}/cgi-bin/release`, signal);
    await until(async () => {
      const { call } = client;
      const output = await call("POST", `${servers}/${first}/action`, { "os-getConsoleOutput": {} });
      return JSON.stringify(output).includes("released");
    }, signal);
    assert.deepEqual([stage.guestPid(first), stage.guestPid(second)], pids);
    await client.call("DELETE", `${servers}/${first}/os-volume_attachments/${volume}`);
    await attach(second);
    const other = await floatingAddress(client, outside, second);
    assert.equal(await get(`http://${other}/cgi-bin/lines`, signal), "first\nsecond");
    const third = await boot(client, network, "#!/bin/sh\n");
    await until(async () => {
      const server = await client.call("GET", `${servers}/${third}`);
      return server["status"] === "ERROR" && /No valid host/.test(JSON.stringify(server["fault"]));
    }, signal);

    await client.call("DELETE", `${servers}/${first}`);
    await until(() => Promise.resolve(stage.guestPid(first) === null), signal);
  },
);
