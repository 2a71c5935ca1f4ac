/** A devcloud that speaks OpenStack, in this process, with plain calls to it. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Devcloud, type DevcloudOptions, startDevcloud } from "#devcloud/start-devcloud.ts";

export interface PlainAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** Parsed where it is JSON. */
  readonly body: Record<string, Record<string, unknown>>;
}

export interface CloudUnderTest {
  readonly devcloud: Devcloud;
  readonly data: string;
  readonly token: string;
  readonly projectId: string;
  /** `path` below the endpoint, e.g. `/compute/v2.1/servers`. */
  readonly call: (
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ) => Promise<PlainAnswer>;
  /** The value of the only key of a good answer. */
  readonly make: (
    path: string,
    body: Record<string, unknown>,
  ) => Promise<Record<string, unknown> & { id: string }>;
  admin(method: string, path: string, body?: unknown): Promise<unknown>;
  /** Again on the same data. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

export async function plain(
  endpoint: string,
  method: string,
  path: string,
  body: unknown,
  headers: Record<string, string>,
): Promise<PlainAnswer> {
  const answer = await fetch(`${endpoint}${path}`, {
    method,
    headers: { "content-type": "application/json", accept: "application/json", ...headers },
    redirect: "manual",
    ...(body === undefined || body === null ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  const isJson = (answer.headers.get("content-type") ?? "").startsWith("application/json") && text !== "";
  return { status: answer.status, headers: answer.headers, text, body: isJson ? JSON.parse(text) : {} };
}

export function passwordRequest(user: string, password: string, scoped = true): object {
  const domain = { name: "Default" };
  return {
    auth: {
      identity: { methods: ["password"], password: { user: { name: user, domain, password } } },
      ...(scoped ? { scope: { project: { name: user, domain } } } : {}),
    },
  };
}

export async function openCloudUnderTest(options: Partial<DevcloudOptions> = {}): Promise<CloudUnderTest> {
  const data = await mkdtemp(join(tmpdir(), "devcloud-openstack-"));
  const start = (): Promise<Devcloud> =>
    startDevcloud({ dialect: "openstack", dataDir: data, compute: "none", ...options });
  let devcloud = await start();
  const login = passwordRequest(devcloud.accessKeyId, devcloud.secretAccessKey.reveal());
  const granted = await plain(devcloud.endpoint, "POST", "/identity/v3/auth/tokens", login, {});
  assert.equal(granted.status, 201, granted.text);
  const token = granted.headers.get("x-subject-token") ?? "";
  const project = granted.body["token"]?.["project"] as { id: string } | undefined;
  assert.ok(project, "the token has a project");
  const projectId = project.id;
  const call: CloudUnderTest["call"] = (method, path, body, headers = {}) =>
    plain(devcloud.endpoint, method, path, body, {
      "x-auth-token": token,
      "openstack-api-version": "compute 2.79",
      ...headers,
    });
  return {
    get devcloud() {
      return devcloud;
    },
    data,
    token,
    projectId,
    call,
    make: async (path, body) => {
      const answer = await call("POST", path, body);
      assert.ok(answer.status < 300, `POST ${path}: ${answer.status} ${answer.text}`);
      return Object.values(answer.body)[0] as Record<string, unknown> & { id: string };
    },
    admin: async (method, path, body) => {
      const headers = { authorization: `Bearer ${devcloud.adminToken.reveal()}` };
      const answer = await plain(devcloud.endpoint, method, `/_devcloud/${path}`, body, headers);
      assert.ok(answer.status < 300, `${method} ${path}: ${answer.status} ${answer.text}`);
      return answer.body;
    },
    restart: async () => {
      await devcloud.close();
      devcloud = await start();
    },
    close: async () => {
      await devcloud.close();
      await rm(data, { recursive: true });
    },
  };
}

export interface World {
  readonly publicNetwork: string;
  readonly network: string;
  readonly subnet: string;
  readonly router: string;
  readonly group: string;
}

/** A network with a way out, and a group that admits TCP 80. */
export async function makeWorld({ call, make }: CloudUnderTest): Promise<World> {
  const neutron = "/networking/v2.0";
  const outside = await call("GET", `${neutron}/networks?router:external=true`);
  const [publicNetwork] = outside.body["networks"] as unknown as { id: string }[];
  const outer = publicNetwork?.id ?? "";
  const network = await make(`${neutron}/networks`, { network: { name: "app" } });
  const subnet = await make(`${neutron}/subnets`, {
    subnet: { network_id: network.id, cidr: "10.9.0.0/24", ip_version: 4 },
  });
  const router = await make(`${neutron}/routers`, {
    router: { name: "app", external_gateway_info: { network_id: outer } },
  });
  const joined = await call("PUT", `${neutron}/routers/${router.id}/add_router_interface`, {
    subnet_id: subnet.id,
  });
  assert.equal(joined.status, 200, joined.text);
  const group = await make(`${neutron}/security-groups`, { security_group: { name: "web" } });
  await make(`${neutron}/security-group-rules`, {
    security_group_rule: {
      security_group_id: group.id,
      direction: "ingress",
      ethertype: "IPv4",
      protocol: "tcp",
      port_range_min: 80,
      port_range_max: 80,
      remote_ip_prefix: "0.0.0.0/0",
    },
  });
  return {
    publicNetwork: outer,
    network: network.id,
    subnet: subnet.id,
    router: router.id,
    group: group.id,
  };
}

export async function firstImage({ call }: CloudUnderTest): Promise<string> {
  const answer = await call("GET", "/image/v2/images?name=understudy/guest");
  const [image] = answer.body["images"] as unknown as { id: string }[];
  return image?.id ?? "";
}
