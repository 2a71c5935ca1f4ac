/** Servers as real guests under QEMU, and volumes as real disks: this cloud's records as wishes to the keeper of guests. */
import type { Cloud } from "#devcloud/core/cloud.ts";
import type { Compute, ComputeStatus, ServerLaunch } from "#devcloud/core/compute.ts";
import { setServerState } from "#devcloud/core/servers.ts";
import { type GuestImage, guestImageFolder, readGuestImage } from "#hypervisor/guest/build-guest-image.ts";
import type { GuestDisks } from "#hypervisor/guests/guest-disks.ts";
import {
  type GuestKeeper,
  type GuestKeeperOptions,
  openGuestKeeper,
} from "#hypervisor/guests/guest-keeper.ts";
import { planGuest } from "#hypervisor/guests/guest-plan.ts";
import type { GuestWishes } from "#hypervisor/guests/guest-wishes.ts";
import { OperationalError } from "#kernel/errors.ts";
import { guestOf, memoryStateTag } from "./qemu-guest-spec.ts";

export interface QemuComputeOptions extends Omit<GuestKeeperOptions, "wishes" | "speaker"> {
  readonly cloud: Cloud;
}

/** Errors: `config.missing` where the guest image is missing, `machine.refused` where QEMU is, `state.conflict`, `store.*`. */
export async function openQemuCompute(options: QemuComputeOptions): Promise<QemuCompute> {
  const image = await readGuestImage();
  if (image === null) {
    throw new OperationalError(
      "config.missing",
      `real guests need the guest image, and ${guestImageFolder()} has none: run script/guest-image`,
    );
  }
  const { cloud, ...rest } = options;
  const keeper = await openGuestKeeper({ ...rest, wishes: wishesOf(cloud), speaker: "devcloud" });
  return new QemuCompute(keeper, image);
}

export class QemuCompute implements Compute {
  readonly reachable = true;
  readonly #keeper: GuestKeeper;
  readonly #image: GuestImage;

  constructor(keeper: GuestKeeper, image: GuestImage) {
    this.#keeper = keeper;
    this.#image = image;
  }

  /** What the cloud's own API does not offer for volumes' content. */
  get disks(): GuestDisks {
    return this.#keeper.disks;
  }

  start(server: ServerLaunch): Promise<void> {
    return this.#keeper.start(server, (disks) => planGuest(guestOf(server, this.#image), disks));
  }

  stop(id: string): Promise<void> {
    return this.#keeper.stop(id);
  }

  status(id: string): ComputeStatus {
    return this.#keeper.status(id);
  }

  console(id: string): Buffer {
    return this.#keeper.console(id);
  }

  forget(id: string): Promise<void> {
    return this.#keeper.forget(id);
  }

  /** Everything is taken from the records, in a pass. */
  refresh(): void {}

  close(): Promise<void> {
    return this.#keeper[Symbol.asyncDispose]();
  }
}

const concerns = new Set(["server", "volume", "port", "rule", "group"]);

function wishesOf(cloud: Cloud): GuestWishes {
  const { data } = cloud;
  const { server: servers, volume, port, rule } = data.tables;
  return {
    volumes: () => volume.values(),
    volume: (id) => volume.get(id),
    volumesOf: (serverId) => {
      const server = servers.get(serverId);
      const attached = volume.by("server", serverId);
      if (server?.tags[memoryStateTag] === undefined) return attached;
      // It keeps nothing: its root disk is no disk of its own.
      return attached.filter(({ attachment }) => attachment?.device !== server.rootDevice);
    },
    isGone: (serverId) => {
      const state = servers.get(serverId)?.state;
      return state === undefined || state === "terminated";
    },
    inletsOf: (serverId) => {
      const server = servers.get(serverId);
      if (server === undefined) return undefined;
      const groupIds = new Set(server.portIds.flatMap((id) => port.get(id)?.groupIds ?? []));
      const rules = Array.from(groupIds).flatMap((id) => rule.by("group", id));
      return { addresses: [server.hostAddress], rules };
    },
    durable: () => data.durable(),
    onChange: (listener) => {
      data.onDurable((changes) => {
        if (changes.some(({ table }) => concerns.has(table))) listener();
      });
    },
    ended: (serverId, how) => {
      if (how === "turned_off") turnedOff(cloud, serverId);
    },
  };
}

/** From inside: the cloud does with the server what it was told to do then. */
function turnedOff(cloud: Cloud, id: string): void {
  const server = cloud.data.tables.server.get(id);
  if (server?.state !== "running") return;
  const reason = {
    code: "Client.InstanceInitiatedShutdown",
    message: "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
  };
  const state = server.onShutdown === "terminate" ? "shutting-down" : "stopping";
  cloud.data.transact(() => setServerState(cloud, server, state, reason));
}
