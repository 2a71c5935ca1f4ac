/**
 * What the translation says that requests did, against what the cloud then shows: a client plays a shop's life at the API,
 * each answer is translated, and the fold of all changes is compared with the driver's own listing.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { z } from "zod";
import { collect } from "#cloud/contract.ts";
import { systemClock } from "#kernel/clock.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { systemRandom } from "#kernel/random.ts";
import type { Gap } from "#model/gap.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import type { Resource } from "#model/resource.ts";
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import { findEndpoint, tokenRequest, tokenResponseSchema } from "#wire/openstack/keystone.ts";
import { openstackChanges } from "#wire/openstack/openstack-changes.ts";
import type { OpenstackLookup } from "#wire/openstack/openstack-effect.ts";
import { openFromEnvironment, optionsFromEnvironment } from "./cloud-from-environment.ts";

const options = optionsFromEnvironment();
const cloud = openFromEnvironment();
after(() => cloud.close());
const { signal } = new AbortController();
const prefix = `e2e-${systemRandom.hex(4)}`;

interface Api {
  readonly get: (service: OpenstackService, path: string) => Promise<unknown>;
  readonly send: (
    method: string,
    service: OpenstackService,
    path: string,
    body?: unknown,
  ) => Promise<{ status: number; body: unknown }>;
}

async function connect(): Promise<Api> {
  const answer = await fetch(`${options.authUrl.replace(/\/v3\/?$/, "")}/v3/auth/tokens`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(tokenRequest(options.credentials, options.project)),
  });
  const { token } = tokenResponseSchema.parse(await answer.json());
  const id = answer.headers.get("x-subject-token") ?? "";
  const want = { interface: "public", ...(options.region === undefined ? {} : { region: options.region }) };
  const below: Partial<Record<OpenstackService, string>> = { network: "/v2.0", image: "/v2" };
  const send: Api["send"] = async (method, service, path, body) => {
    const base = (findEndpoint(token.catalog, service, want) ?? "").replace(/\/$/, "");
    const version = base.endsWith(below[service] ?? " ") ? "" : (below[service] ?? "");
    const response = await fetch(`${base}${version}${path}`, {
      method,
      headers: {
        "x-auth-token": id,
        "content-type": "application/json",
        accept: "application/json",
        ...(service === "compute" ? { "openstack-api-version": "compute 2.79" } : {}),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    return { status: response.status, body: text === "" ? undefined : JSON.parse(text) };
  };
  return {
    send,
    get: async (service, path) => {
      const { status, body } = await send("GET", service, path);
      return status === 404 ? undefined : body;
    },
  };
}

interface Recorder {
  readonly state: EnvironmentState;
  readonly gaps: Gap[];
  readonly unknown: object[];
  readonly change: (
    method: string,
    service: OpenstackService,
    path: string,
    body?: unknown,
  ) => Promise<unknown>;
}

const versions: Readonly<Record<OpenstackService, string>> = {
  identity: "/v3",
  compute: "/v2.1",
  network: "/v2.0",
  image: "/v2",
  volume: "/v3",
};

function recorder(api: Api): Recorder {
  const state = new EnvironmentState();
  const gaps: Gap[] = [];
  const unknown: object[] = [];
  const lookup: OpenstackLookup = { get: api.get, known: (kind, id) => state.get(kind, id) };
  return {
    state,
    gaps,
    unknown,
    async change(method, service, path, requestBody) {
      const { status, body } = await api.send(method, service, path, requestBody);
      assert.ok(status < 300, `${method} ${path}: ${status} ${JSON.stringify(body)}`);
      const exchange = {
        method,
        path: `${versions[service]}${path}`,
        requestBody,
        responseBody: body,
        status,
      };
      const effect = await openstackChanges(exchange, lookup);
      gaps.push(...effect.gaps);
      for (const change of effect.changes) if (state.apply(change) === "unknown") unknown.push(change);
      return body;
    },
  };
}

/** The id of the one object that a create answers with. */
function idOf(body: unknown): string {
  const [object] = Object.values(z.record(z.string(), z.looseObject({ id: z.string() })).parse(body));
  assert.ok(object);
  return object.id;
}

async function shown(resource: Resource): Promise<Resource> {
  const [found] = await collect(cloud.list(resource.kind, { ids: [resource.id] }, signal));
  assert.ok(found, `the cloud shows ${resource.kind} ${resource.id}`);
  return found.resource;
}

/** Every field that the fold has is as the cloud shows it, apart from what Nova shows to nobody. */
async function compare(state: EnvironmentState): Promise<void> {
  for (const folded of state.resources()) {
    const { spec, tags } = await shown(folded);
    for (const [field, value] of Object.entries(folded.spec)) {
      if (field === "userData" || value === undefined) continue;
      const seen = (spec as unknown as Record<string, unknown>)[field];
      assert.deepEqual(seen, value, `${folded.kind} ${folded.id}: ${field}`);
    }
    assert.deepEqual(tags, folded.tags, `${folded.kind} ${folded.id}: tags`);
  }
}

async function status(id: string, wanted: string): Promise<void> {
  const api = await connect();
  for (;;) {
    const body = z
      .object({
        server: z.looseObject({ status: z.string(), "OS-EXT-STS:task_state": z.string().nullish() }),
      })
      .parse(await api.get("compute", `/servers/${id}`));
    assert.notEqual(body.server.status, "ERROR");
    if (body.server.status === wanted && !body.server["OS-EXT-STS:task_state"]) return;
    await systemClock.sleep(250);
  }
}

void test("a shop's life, translated, is what the cloud shows", { timeout: 300_000 }, async () => {
  const api = await connect();
  const { state, gaps, unknown, change } = recorder(api);
  const { images, types } = await cloud.catalogue(signal);
  const [small, other] = types.toSorted((a, b) => a.memoryMiB - b.memoryMiB);
  const flavors = z
    .object({ flavors: z.array(z.object({ id: z.string(), name: z.string() })) })
    .parse(await api.get("compute", "/flavors")).flavors;
  const flavor = (name: string | undefined): string => flavors.find((one) => one.name === name)?.id ?? "";
  const external = z
    .object({ networks: z.array(z.object({ id: z.string(), name: z.string() })) })
    .parse(await api.get("network", "/networks?router:external=true")).networks;
  const { publicNetwork } = options;
  const publicId = external.find(
    ({ id, name }) => publicNetwork === undefined || [id, name].includes(publicNetwork),
  )?.id;

  const network = idOf(await change("POST", "network", "/networks", { network: { name: prefix } }));
  const subnet = idOf(
    await change("POST", "network", "/subnets", {
      subnet: { network_id: network, cidr: "10.95.1.0/24", ip_version: 4, name: prefix },
    }),
  );
  const router = idOf(
    await change("POST", "network", "/routers", {
      router: { name: prefix, external_gateway_info: { network_id: publicId } },
    }),
  );
  await change("PUT", "network", `/routers/${router}/add_router_interface`, { subnet_id: subnet });
  await change("PUT", "network", `/networks/${network}/tags`, { tags: ["tier=shop", "bare"] });
  await change("DELETE", "network", `/networks/${network}/tags/bare`);
  const group = idOf(
    await change("POST", "network", "/security-groups", {
      security_group: { name: prefix, description: "web" },
    }),
  );
  const rule = {
    security_group_id: group,
    direction: "ingress",
    protocol: "tcp",
    port_range_min: 80,
    port_range_max: 80,
  };
  await change("POST", "network", "/security-group-rules", { security_group_rule: rule });
  const gone = idOf(
    await change("POST", "network", "/security-group-rules", {
      security_group_rule: { ...rule, protocol: "udp", remote_group_id: group },
    }),
  );
  await change("DELETE", "network", `/security-group-rules/${gone}`);

  const server = idOf(
    await change("POST", "compute", "/servers", {
      server: {
        name: `${prefix}-web`,
        flavorRef: flavor(small?.name),
        imageRef: images[0]?.id,
        networks: [{ uuid: network }],
        security_groups: [{ name: group }],
        metadata: { tier: "web", remark: "x" },
        user_data: "aGVsbG8=",
      },
    }),
  );
  await status(server, "ACTIVE");
  await change("PUT", "compute", `/servers/${server}/metadata`, { metadata: { tier: "app" } });
  await change("POST", "compute", `/servers/${server}/action`, {
    resize: { flavorRef: flavor(other?.name) },
  });
  await status(server, "VERIFY_RESIZE");
  await change("POST", "compute", `/servers/${server}/action`, { confirmResize: null });
  await status(server, "ACTIVE");
  const second = idOf(
    await change("POST", "network", "/security-groups", { security_group: { name: `${prefix}-2` } }),
  );
  await change("POST", "compute", `/servers/${server}/action`, { addSecurityGroup: { name: second } });
  const volume = idOf(
    await change("POST", "volume", "/volumes", { volume: { size: 1, metadata: { tier: "db" } } }),
  );
  while ((await cloud.get("volume", volume as ResourceId, signal))?.status !== "ready") {
    await systemClock.sleep(250);
  }
  const attachments = `/servers/${server}/os-volume_attachments`;
  await change("POST", "compute", attachments, { volumeAttachment: { volumeId: volume } });
  const address = idOf(
    await change("POST", "network", "/floatingips", { floatingip: { floating_network_id: publicId } }),
  );
  const { ports } = z
    .object({ ports: z.array(z.object({ id: z.string() })) })
    .parse(await api.get("network", `/ports?device_id=${server}`));
  await change("PUT", "network", `/floatingips/${address}`, { floatingip: { port_id: ports[0]?.id } });
  await change("POST", "compute", `/servers/${server}/action`, { "os-stop": null });
  await status(server, "SHUTOFF");

  assert.deepEqual([gaps, unknown], [[], []]);
  const internet = state.get("network", network);
  assert.ok(internet?.kind === "network" && internet.spec.internet);
  await compare(state);

  await change("PUT", "network", `/floatingips/${address}`, { floatingip: { port_id: null } });
  await change("DELETE", "network", `/floatingips/${address}`);
  await change("DELETE", "compute", `${attachments}/${volume}`);
  await change("DELETE", "compute", `/servers/${server}`);
  while ((await cloud.get("server", server as ResourceId, signal)) !== undefined)
    await systemClock.sleep(250);
  await cloud.delete("volume", volume as ResourceId, signal);
  await change("PUT", "network", `/routers/${router}/remove_router_interface`, { subnet_id: subnet });
  await change("DELETE", "network", `/routers/${router}`);
  await change("DELETE", "network", `/subnets/${subnet}`);
  await change("DELETE", "network", `/networks/${network}`);
  for (const one of [group, second]) await change("DELETE", "network", `/security-groups/${one}`);
  assert.deepEqual(unknown, []);
  assert.deepEqual(
    [...state.resources()].filter(({ kind }) => kind !== "securityGroupRule").map(({ kind }) => kind),
    ["volume"],
  );
});
