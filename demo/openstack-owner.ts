// The same owner after the roles are exchanged: the active cloud speaks OpenStack now, and so do the owner's tools. They talk
// to the same gateway, with the same key, and again know nothing of it.
import { request } from "undici";

interface Catalog {
  readonly token: {
    readonly catalog: readonly {
      readonly type: string;
      readonly endpoints: readonly { readonly interface: string; readonly url: string }[];
    }[];
  };
}

interface Named {
  readonly id: string;
  readonly name: string;
}

export interface OpenstackOwner {
  /** Starts one more server that is like the named one; resolves with its id once the cloud has accepted it. */
  startLike(name: string, copy: string): Promise<string>;
}

export async function openOpenstackOwner(
  gateway: string,
  environment: string,
  key: { readonly accessKeyId: string; readonly secretAccessKey: string },
): Promise<OpenstackOwner> {
  const domain = { name: "Default" };
  const user = { name: key.accessKeyId, password: key.secretAccessKey, domain };
  const identity = { methods: ["password"], password: { user } };
  const login = await send("POST", `${gateway}/identity/v3/auth/tokens`, {
    auth: { identity, scope: { project: { name: environment, domain } } },
  });
  const token = String(login.headers["x-subject-token"]);
  const { catalog } = (login.body as Catalog).token;
  const endpoint = (type: string): string => {
    const url = catalog
      .find((service) => service.type === type)
      ?.endpoints.find((one) => one.interface === "public")?.url;
    if (url === undefined) throw new Error(`the catalog has no ${type}`);
    return url.replace(/\/$/u, "");
  };
  const compute = endpoint("compute");

  return {
    async startLike(name, copy) {
      const { servers } = (await send("GET", `${compute}/servers/detail`, undefined, token)).body as {
        servers: readonly (Named & {
          flavor: { id?: string; original_name?: string };
          image: { id: string };
          addresses: Record<string, unknown>;
          security_groups: readonly { name: string }[];
        })[];
      };
      const model = servers.find((server) => server.name === name);
      if (model === undefined) throw new Error(`no server ${name} in the cloud`);
      const { flavors } = (await send("GET", `${compute}/flavors`, undefined, token)).body as {
        flavors: readonly Named[];
      };
      const flavor = flavors.find(
        ({ id, name: own }) => id === model.flavor.id || own === model.flavor.original_name,
      );
      const [networkName] = Object.keys(model.addresses);
      const { networks } = (await send("GET", `${endpoint("network")}/v2.0/networks`, undefined, token))
        .body as {
        networks: readonly Named[];
      };
      const network = networks.find((one) => one.name === networkName);
      const server = {
        name: copy,
        flavorRef: flavor?.id,
        imageRef: model.image.id,
        networks: [{ uuid: network?.id }],
        security_groups: model.security_groups.map((group) => ({ name: group.name })),
        metadata: { tier: "batch", owner: "shop" },
      };
      const made = (await send("POST", `${compute}/servers`, { server }, token)).body as {
        server: { id: string };
      };
      return made.server.id;
    },
  };
}

async function send(method: "GET" | "POST", url: string, body: unknown, token?: string) {
  const answer = await request(url, {
    method,
    headers: {
      accept: "application/json",
      ...(body === undefined ? {} : { "content-type": "application/json" }),
      ...(token === undefined ? {} : { "x-auth-token": token }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.body.text();
  if (answer.statusCode >= 300)
    throw new Error(`${method} ${url}: ${answer.statusCode} ${text.slice(0, 300)}`);
  return { headers: answer.headers, body: JSON.parse(text) as unknown };
}
