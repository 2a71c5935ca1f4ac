// The user of a simulated world: changes the environment through whichever cloud is active, as a gateway would let it, and
// remembers what was acknowledged. Names tell servers apart on both sides.
import type { Cloud, Observed } from "#cloud/contract.ts";
import { commandId, type ResourceId } from "#kernel/ids.ts";
import { isOperational } from "#kernel/errors.ts";
import type { Change } from "#model/change.ts";
import type { ResourceKind, ResourceOf, ResourceSpecs, ServerSpec, Tags } from "#model/resource.ts";
import { volumeAttachmentId } from "#model/resource.ts";
import { readEnvironment } from "#takeover/environment-record.ts";
import { keptTags } from "./simulated-disks.ts";
import type { SiteName } from "./simulated-sites.ts";
import { environment, type SimulatedWorld } from "./simulated-world.ts";

export interface ExpectedServer {
  readonly type: string;
  readonly tags: Tags;
  readonly volumes: number;
  /** Its volume comes back from the vault: no reserve of it is held. */
  readonly kept: boolean;
}

const types = ["tiny", "small", "medium", "large"];
const tiers = ["web", "app", "db"];
const signal = new AbortController().signal;

export class SimulatedUser {
  /** Server name -> what was acknowledged of it. */
  readonly expected = new Map<string, ExpectedServer>();
  readonly #world: SimulatedWorld;
  #serial = 0;

  constructor(world: SimulatedWorld) {
    this.#world = world;
  }

  /** One change of a random kind; nothing where the environment takes none just now. */
  async act(): Promise<void> {
    const { random } = this.#world;
    const draw = random.fraction();
    const names = [...this.expected.keys()];
    const name = names[Math.floor(random.fraction() * names.length)];
    const pick = <T>(some: readonly T[]): T => some[Math.floor(random.fraction() * some.length)] as T;
    if (name === undefined || draw < 0.4) {
      await this.launch(pick(tiers), pick(types));
      return;
    }
    if (draw < 0.55) return this.#retag(name);
    if (draw < 0.7) return this.#resize(name);
    if (draw < 0.85) return this.addVolume(name, random.fraction() < 0.5 ? keptTags : {});
    return this.#terminate(name);
  }

  async build(): Promise<void> {
    await this.#command(async (cloud) => {
      const network = await this.#create(
        cloud,
        "network",
        { cidr: "10.0.0.0/16", internet: true },
        { Name: "shop" },
      );
      const networkId = network.resource.id;
      const created: Change[] = [created_(network)];
      for (const [index, tier] of tiers.entries()) {
        const subnet = { networkId, cidr: `10.0.${index}.0/24`, publicAddresses: tier === "web" };
        created.push(created_(await this.#create(cloud, "subnet", subnet, { Name: tier })));
        const group = { networkId, name: tier, description: tier };
        created.push(created_(await this.#create(cloud, "securityGroup", group, {})));
      }
      return created;
    });
  }

  /** Answers its name. */
  async launch(tier: string, type: string): Promise<string> {
    this.#serial += 1;
    const name = `${tier}-${this.#serial}`;
    const tags = { Name: name, tier };
    const state = this.#world.runtime.state;
    const find = (kind: "subnet" | "securityGroup"): ResourceId | undefined => {
      for (const one of state.resources()) {
        if (one.kind === "subnet" && kind === "subnet" && one.tags["Name"] === tier) return one.id;
        if (one.kind === "securityGroup" && kind === "securityGroup" && one.spec.name === tier) return one.id;
      }
      return undefined;
    };
    const [subnetId, groupId] = [find("subnet"), find("securityGroup")];
    if (subnetId === undefined || groupId === undefined) return name;
    const spec: ServerSpec = {
      imageId: "img-web",
      type,
      subnetId,
      groupIds: [groupId],
      publicAddress: false,
      power: "running",
      blockDevices: [],
    };
    const done = await this.#command(async (cloud) => [
      created_(await this.#create(cloud, "server", spec, tags)),
    ]);
    if (done) this.expected.set(name, { type, tags, volumes: 0, kept: false });
    return name;
  }

  async #retag(name: string): Promise<void> {
    const server = this.#serverNamed(name);
    const before = this.expected.get(name);
    if (server === undefined || before === undefined) return;
    const set = { release: String(Math.floor(this.#world.random.fraction() * 100)) };
    const { id } = server;
    const done = await this.#command(async (cloud) => {
      await cloud.setTags("server", id, set, [], signal);
      return [{ type: "tag", kind: "server", id, set, remove: [] }];
    });
    if (done) this.expected.set(name, { ...before, tags: { ...before.tags, ...set } });
  }

  async #resize(name: string): Promise<void> {
    const server = this.#serverNamed(name);
    const before = this.expected.get(name);
    if (server === undefined || before === undefined) return;
    const type = types[Math.floor(this.#world.random.fraction() * types.length)] ?? "tiny";
    const { id } = server;
    const done = await this.#command(async (cloud) => {
      await cloud.update("server", id, { type }, signal);
      return [{ type: "update", kind: "server", id, set: { type } }];
    });
    if (done) this.expected.set(name, { ...before, type });
  }

  /** A volume that nothing has. */
  async addSpareVolume(tags: Tags): Promise<void> {
    await this.#command(async (cloud) => [
      created_(await this.#create(cloud, "volume", { sizeGiB: 5, zone: "zone-a" }, tags)),
    ]);
  }

  async addVolume(name: string, tags: Tags): Promise<void> {
    const server = this.#serverNamed(name);
    const before = this.expected.get(name);
    if (server === undefined || before === undefined || before.volumes > 0) return;
    const serverId = server.id;
    const done = await this.#command(async (cloud) => {
      const volume = await this.#create(cloud, "volume", { sizeGiB: 5, zone: "zone-a" }, tags);
      const volumeId = volume.resource.id;
      const spec = { volumeId, serverId, device: "/dev/sdf", deleteOnTermination: true };
      const link = await this.#create(cloud, "volumeAttachment", spec, {});
      return [created_(volume), { ...created_(link), id: volumeAttachmentId(volumeId, serverId) }];
    });
    if (done) this.expected.set(name, { ...before, volumes: 1, kept: tags === keptTags });
  }

  async #terminate(name: string): Promise<void> {
    const server = this.#serverNamed(name);
    if (server === undefined) return;
    const { id } = server;
    const done = await this.#command(async (cloud) => {
      await cloud.delete("server", id, signal);
      return [{ type: "delete", kind: "server", id }];
    });
    if (done) this.expected.delete(name);
  }

  #serverNamed(name: string): ResourceOf<"server"> | undefined {
    for (const resource of this.#world.runtime.state.resources()) {
      if (resource.kind === "server" && resource.tags["Name"] === name) return resource;
    }
    return undefined;
  }

  #create<K extends ResourceKind>(
    cloud: Cloud,
    kind: K,
    spec: ResourceSpecs[K],
    tags: Tags,
  ): Promise<Observed<K>> {
    return cloud.create(
      { kind, spec, tags, token: this.#world.random.uuid(), scope: "user", mayExist: false },
      signal,
    );
  }

  /** As a gateway does it: intent, cloud, outcome. True once it was acknowledged; what the cloud or a fence refused changed nothing. */
  async #command(work: (cloud: Cloud) => Promise<readonly Change[]>): Promise<boolean> {
    const { store, journal, random, clock, sites, runtime } = this.#world;
    await runtime.stage.settledState(signal);
    const { phase, epoch, activeSite } = await readEnvironment(store, environment);
    const site = sites[activeSite as SiteName];
    if ((phase !== "protected" && phase !== "failed_over") || site.down) return false;
    const id = commandId(random.uuid());
    const intent = {
      service: "ec2",
      operation: "Simulated",
      input: {},
      token: null,
      principal: "user",
    } as const;
    try {
      await journal.recordIntent({ ...intent, id, environment, epoch, at: clock.now() });
    } catch (error) {
      if (isOperational(error, "state.fenced")) return false;
      throw error;
    }
    const outcome = { status: 200, errorCode: null, gaps: [], resolvedLater: false };
    try {
      const changes = await work(site.cloud);
      // The answer is on its way when the cloud dies: nobody is told, and nobody can ask.
      if (site.down) return false;
      await journal.recordOutcome(environment, id, {
        ...outcome,
        result: "applied",
        changes,
        at: clock.now(),
      });
      return true;
    } catch (error) {
      if (!isOperational(error)) throw error;
      // Abandoned by a takeover meanwhile: then it was not acknowledged.
      if (error.code === "state.conflict") return false;
      await journal.recordOutcome(environment, id, {
        ...outcome,
        result: "refused",
        changes: [],
        at: clock.now(),
      });
      return false;
    }
  }
}

function created_(observed: Observed): Change {
  return { type: "create", ...observed.resource };
}
