// Two clouds on this machine, east and west, and a folder with the control plane's configuration and data beside them.
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { request } from "undici";
import { type Devcloud, startDevcloud } from "#devcloud/start-devcloud.ts";
import type { FaultSpec } from "#devcloud/front/fault-rules.ts";
import { openAccessKeys } from "#gateway/access-keys.ts";
import { systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { systemRandom } from "#kernel/random.ts";
import { environmentName, EngineUnderTest, type Key, regions, type Side } from "./engine-under-test.ts";

export const image = "ami-0a1b2c3d4e5f60001";

interface Row {
  readonly id: string;
  readonly name: string;
  readonly tags: Readonly<Record<string, string>>;
}

export interface CloudDump {
  readonly format: number;
  readonly dialect: string;
  readonly tables: {
    readonly server: readonly (Row & { readonly type: string; readonly state: string })[];
    readonly network: readonly (Row & { readonly isDefault: boolean })[];
    readonly subnet: readonly (Row & { readonly isDefault: boolean })[];
    readonly group: readonly (Row & { readonly isDefault: boolean })[];
    readonly rule: readonly (Row & {
      readonly groupId: string;
      readonly direction: string;
      readonly fromPort: number | null;
    })[];
    readonly keyPair: readonly Row[];
    readonly volume: readonly (Row & {
      readonly attachment: { readonly serverId: string; readonly device: string } | null;
    })[];
    readonly address: readonly (Row & {
      readonly association: { readonly serverId: string | null } | null;
    })[];
  };
}

/** Everything that a round begins from: both clouds and the control plane's data. */
export interface Prepared {
  readonly east: CloudDump;
  readonly west: CloudDump;
  /** A copy of the data folder. */
  readonly data: string;
}

export interface TwoCloudsOptions {
  readonly compute?: "process" | "none";
  /** Two loopback prefixes that nobody else uses. */
  readonly addressBases?: readonly [string, string];
  /** YAML of the environment beyond its sites and reserve. */
  readonly more?: string;
  /** Each site has a host agent at `SIDE-host.sock`, and there is a vault served from `vault-data`; both are the test's own. */
  readonly disks?: boolean;
}

export class TwoClouds implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "understudy-takeover-"));
  readonly #options: TwoCloudsOptions;
  readonly #clouds = new Map<Side, Devcloud>();
  readonly #ports = new Map<Side, number>();
  #key: Key | undefined;

  private constructor(options: TwoCloudsOptions) {
    this.#options = options;
  }

  /** `like`: with the secrets and the state of others, so that their prepared states can be put here. */
  static async open(options: TwoCloudsOptions = {}, like?: TwoClouds): Promise<TwoClouds> {
    const clouds = new TwoClouds(options);
    if (like !== undefined) {
      clouds.#key = like.key;
      for (const side of ["east", "west"] as const) {
        mkdirSync(join(clouds.folder, side), { mode: 0o700 });
        cpSync(join(like.folder, side, "secret-key"), join(clouds.folder, side, "secret-key"));
      }
    }
    await clouds.start("east");
    await clouds.start("west");
    clouds.writeConfig();
    if (like === undefined) await clouds.#createKey();
    return clouds;
  }

  get key(): Key {
    if (this.#key === undefined) throw new Error("the key is made when the clouds are opened");
    return this.#key;
  }

  /** On the same port as before. */
  async start(side: Side): Promise<void> {
    if (this.#clouds.has(side)) return;
    const [east, west] = this.#options.addressBases ?? ["127.43.0.0/16", "127.44.0.0/16"];
    const cloud = await startDevcloud({
      dialect: "ec2",
      dataDir: join(this.folder, side),
      region: regions[side],
      addressBase: side === "east" ? east : west,
      compute: this.#options.compute ?? "none",
      port: this.#ports.get(side) ?? 0,
      lifecycle: { bootMs: 20, stopMs: 10 },
      stopGraceMs: 500,
    });
    this.#ports.set(side, Number(new URL(cloud.endpoint).port));
    this.#clouds.set(side, cloud);
  }

  /** Nothing answers there any more. */
  async stop(side: Side): Promise<void> {
    await this.#clouds.get(side)?.close();
    this.#clouds.delete(side);
  }

  #cloud(side: Side): Devcloud {
    const cloud = this.#clouds.get(side);
    if (cloud === undefined) throw new Error(`${side} is down`);
    return cloud;
  }

  async #admin(
    side: Side,
    method: "GET" | "PUT" | "POST" | "DELETE",
    path: string,
    body?: unknown,
  ): Promise<string> {
    const { endpoint, adminToken } = this.#cloud(side);
    const answer = await request(new URL(`/_devcloud/${path}`, endpoint), {
      method,
      headers: { authorization: `Bearer ${adminToken.reveal()}` },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.body.text();
    if (answer.statusCode >= 300) throw new Error(`${path}: ${answer.statusCode} ${text}`);
    return text;
  }

  async dump(side: Side): Promise<CloudDump> {
    return JSON.parse(await this.#admin(side, "GET", "state")) as CloudDump;
  }

  /** Whether a server that has the volume runs there now. */
  async runsWith(side: Side, volumeId: string): Promise<boolean> {
    if (!this.#clouds.has(side)) return false;
    const { server, volume } = (await this.dump(side)).tables;
    const holder = volume.find(({ id }) => id === volumeId)?.attachment?.serverId;
    return server.some(({ id, state }) => id === holder && (state === "running" || state === "pending"));
  }

  async setFaults(side: Side, faults: readonly Partial<FaultSpec>[]): Promise<void> {
    await this.#admin(side, "PUT", "faults", faults);
  }

  async setQuotas(side: Side, quotas: Readonly<Record<string, number>>): Promise<void> {
    await this.#admin(side, "PUT", "quotas", quotas);
  }

  /** As they are now; the control plane must be down. */
  async save(name: string): Promise<Prepared> {
    for (const side of ["east", "west"] as const) {
      await this.start(side);
      await this.#admin(side, "POST", "settle");
    }
    const data = join(this.folder, `prepared-${name}`);
    cpSync(join(this.folder, "data"), data, { recursive: true });
    return { east: await this.dump("east"), west: await this.dump("west"), data };
  }

  async restore(prepared: Prepared): Promise<void> {
    for (const side of ["east", "west"] as const) {
      await this.start(side);
      await this.#admin(side, "DELETE", "faults");
      await this.#admin(side, "PUT", "state", prepared[side]);
      await this.#admin(side, "POST", "settle");
    }
    rmSync(join(this.folder, "data"), { recursive: true, force: true });
    cpSync(prepared.data, join(this.folder, "data"), { recursive: true });
  }

  async startEngine(killAt = 0): Promise<EngineUnderTest | undefined> {
    return EngineUnderTest.start(this.folder, this.key, killAt);
  }

  async mustStartEngine(): Promise<EngineUnderTest> {
    const engine = await this.startEngine();
    if (engine === undefined) throw new Error("the engine was not told to die");
    return engine;
  }

  writeConfig(more = this.#options.more ?? defaultRest): void {
    const site = (side: Side): string => {
      const { endpoint, accessKeyId, region } = this.#cloud(side);
      writeFileSync(join(this.folder, `${side}-key-id`), accessKeyId);
      return `  ${side}:
    driver: ec2
    region: ${region}
    endpoint: ${endpoint}${this.#options.disks === true ? `\n    host: {socket: ./${side}-host.sock}` : ""}
    credentials: {accessKeyId: {file: ./${side}-key-id}, secretAccessKey: {file: ./${side}/secret-key}}`;
    };
    writeFileSync(
      join(this.folder, "understudy.yaml"),
      `version: 1
data: ./data
listen: {gateway: "127.0.0.1:0", api: "127.0.0.1:0"}
${this.#options.disks === true ? "vault: {store: {folder: ./vault}, passphrase: {file: ./phrase}, data: ./vault-data}\n" : ""}sites:
${site("east")}
${site("west")}
environments:
  ${environmentName}:
    active: east
    standby: west
    reserve: {servers: {ratio: 0.3, minimumPerGroup: 1, groupBy: tier}}
    translate: {images: {${image}: ${image}}}
${more}`,
    );
  }

  async #createKey(): Promise<void> {
    const data = join(this.folder, "data");
    mkdirSync(data, { recursive: true, mode: 0o700 });
    const keys = await openAccessKeys(join(data, "access-keys.json"), {
      clock: systemClock,
      random: systemRandom,
    });
    const request = { environment: environmentId(environmentName), rights: "change", label: "test" } as const;
    const { id, secret } = await keys.create(request);
    this.#key = { accessKeyId: id, secretAccessKey: secret.reveal() };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop("east");
    await this.stop("west");
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** No routes, and only a person moves the environment. */
const defaultRest = `    probes: [{name: cloud, every: 1s, timeout: 1s, check: {cloudApi: active}}]
    failover: {triggers: []}
`;
