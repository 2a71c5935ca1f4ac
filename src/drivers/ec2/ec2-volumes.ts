/** Volumes and their attachments. The root disk of a server is part of the server, and is not listed here. */
import type { Filter, Volume } from "@aws-sdk/client-ec2";
import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  DeleteVolumeCommand,
  DescribeInstancesCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  ModifyInstanceAttributeCommand,
  ModifyVolumeCommand,
} from "@aws-sdk/client-ec2";
import type { Observed, ResourceStatus } from "#cloud/contract.ts";
import { onceThere } from "#cloud/once-there.ts";
import { OperationalError, isOperational } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { VolumeAttachmentSpec, VolumeSpec } from "#model/resource.ts";
import { volumeAttachmentId } from "#model/resource.ts";
import { attachmentsFromVolume, volumeFromEc2 } from "#wire/ec2/ec2-resources.ts";
import type { Ec2Connection } from "./ec2-connection.ts";
import { filters } from "./ec2-connection.ts";
import type { Ec2Kind } from "./ec2-kind.ts";
import { firstOf, markedTags, missing, observed, tokenFilter, unlessGone } from "./ec2-kind.ts";

const statuses: ReadonlyMap<string, ResourceStatus> = new Map([
  ["creating", "pending"],
  ["available", "ready"],
  ["in-use", "ready"],
  ["error", "failed"],
]);

/** Pages of what is not on its way out, without the root disks. */
async function* volumePages(
  ec2: Ec2Connection,
  Filters: Filter[],
  signal: AbortSignal,
): AsyncIterable<Volume[]> {
  const pages = ec2.pages("DescribeVolumes", signal, (client, paging, options) =>
    client.send(new DescribeVolumesCommand({ Filters, ...paging }), options),
  );
  for await (const { Volumes = [] } of pages) {
    const alive = Volumes.filter(({ State }) => State !== undefined && statuses.has(State));
    const roots = await rootDevices(ec2, alive, signal);
    yield alive.filter(
      ({ Attachments }) =>
        !Attachments?.some(({ InstanceId, Device }) => roots.get(InstanceId ?? "") === Device),
    );
  }
}

async function rootDevices(
  ec2: Ec2Connection,
  volumes: readonly Volume[],
  signal: AbortSignal,
): Promise<Map<string, string | undefined>> {
  const attached = volumes.flatMap(({ Attachments }) => Attachments ?? []);
  const ids = [...new Set(attached.flatMap(({ InstanceId }) => InstanceId ?? []))];
  const roots = new Map<string, string | undefined>();
  for (let from = 0; from < ids.length; from += 200) {
    const Filters = filters({ "instance-id": ids.slice(from, from + 200) });
    const pages = ec2.pages("DescribeInstances", signal, (client, paging, options) =>
      client.send(new DescribeInstancesCommand({ Filters, ...paging }), options),
    );
    for await (const { Reservations = [] } of pages) {
      for (const { InstanceId, RootDeviceName } of Reservations.flatMap(({ Instances }) => Instances ?? [])) {
        roots.set(InstanceId ?? "", RootDeviceName);
      }
    }
  }
  return roots;
}

/** Also where it is a root disk, and also while it is on its way out. */
async function volumeById(ec2: Ec2Connection, id: string, signal: AbortSignal): Promise<Volume | undefined> {
  const Filters = filters({ "volume-id": id });
  const answer = await ec2.read("DescribeVolumes", signal, (client, options) =>
    client.send(new DescribeVolumesCommand({ Filters }), options),
  );
  return answer.Volumes?.find(({ State }) => State !== "deleted");
}

async function detach(
  ec2: Ec2Connection,
  volumeId: string,
  instanceId: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const attachmentOf = async () => {
    const all = (await volumeById(ec2, volumeId, signal))?.Attachments ?? [];
    return all.find(
      ({ InstanceId, State }) =>
        State !== "detached" && (instanceId === undefined || InstanceId === instanceId),
    );
  };
  const held = await attachmentOf();
  if (held === undefined) return;
  if (held.State !== "detaching") {
    const input = { VolumeId: volumeId, InstanceId: held.InstanceId };
    await unlessGone(
      ec2.change("DetachVolume", signal, (client, options) =>
        client.send(new DetachVolumeCommand(input), options),
      ),
    );
  }
  await ec2.until(signal, async () => ((await attachmentOf()) === undefined ? true : undefined));
}

export function ec2Volumes(
  ec2: Ec2Connection,
  anyZone: (signal: AbortSignal) => Promise<string | undefined>,
): Ec2Kind<"volume"> {
  const pages: Ec2Kind<"volume">["pages"] = async function* (select, ids, signal) {
    for await (const page of volumePages(ec2, [...select, ...filters({ "volume-id": ids })], signal)) {
      yield page.map((volume): Observed<"volume"> =>
        observed(volumeFromEc2(volume), statuses.get(volume.State ?? "") ?? "pending"),
      );
    }
  };
  return {
    pages,
    tagTarget: async (id) => id,
    create: async (request, signal) => {
      const { kind, spec, tags } = request;
      const again = request.mayExist
        ? await firstOf(pages([tokenFilter(request.token)], undefined, signal))
        : undefined;
      if (again !== undefined) return again;
      const input = {
        Size: spec.sizeGiB,
        ...typeAndIops(spec),
        AvailabilityZone: spec.zone ?? (await anyZone(signal)),
        Encrypted: spec.encrypted,
        SnapshotId: spec.snapshotId,
        ClientToken: request.token,
        TagSpecifications: markedTags(request, "volume"),
      };
      const made = await ec2.change("CreateVolume", signal, (client, options) =>
        client.send(new CreateVolumeCommand(input), options),
      );
      const { id, spec: seen } = volumeFromEc2(made);
      const status = statuses.get(made.State ?? "") ?? "pending";
      return observed<"volume">({ kind, id, spec: { ...spec, ...seen }, tags }, status);
    },
    update: async (id, set, signal) => {
      const { sizeGiB, type, iops, ...others } = set;
      if (Object.keys(others).length > 0) {
        const message = `of volume ${id} only size, type and iops can be changed, not ${Object.keys(others).join(", ")}`;
        throw new OperationalError("cloud.unsupported", message);
      }
      const shows = (volume: Volume): boolean =>
        (sizeGiB === undefined || volume.Size === sizeGiB) &&
        (type === undefined || volume.VolumeType === type) &&
        (iops === undefined || volume.Iops === iops);
      const current = await volumeById(ec2, id, signal);
      if (current === undefined) throw missing("volume", id);
      if (shows(current)) return;
      const input = { VolumeId: id, Size: sizeGiB, VolumeType: type as "gp3" | undefined, Iops: iops };
      await ec2.change("ModifyVolume", signal, (client, options) =>
        client.send(new ModifyVolumeCommand(input), options),
      );
      await ec2.until(signal, async () => {
        const volume = await volumeById(ec2, id, signal);
        if (volume === undefined) throw missing("volume", id);
        return shows(volume) ? true : undefined;
      });
    },
    delete: async (id, signal) => {
      const current = await volumeById(ec2, id, signal);
      if (current === undefined) return;
      if (current.State !== "deleting") {
        await detach(ec2, id, undefined, signal);
        await unlessGone(
          ec2.change("DeleteVolume", signal, (client, options) =>
            client.send(new DeleteVolumeCommand({ VolumeId: id }), options),
          ),
        );
      }
      await ec2.until(signal, async () =>
        (await volumeById(ec2, id, signal)) === undefined ? true : undefined,
      );
    },
  };
}

export function ec2VolumeAttachments(ec2: Ec2Connection): Ec2Kind<"volumeAttachment"> {
  const endsOf = (id: ResourceId): readonly [string, string] => {
    const [volumeId = "", serverId = ""] = id.split("@");
    return [volumeId, serverId];
  };

  async function endWithServer(
    { volumeId, serverId, device, deleteOnTermination }: VolumeAttachmentSpec,
    signal: AbortSignal,
  ): Promise<void> {
    const Ebs = { VolumeId: volumeId, DeleteOnTermination: deleteOnTermination };
    const input = { InstanceId: serverId, BlockDeviceMappings: [{ DeviceName: device, Ebs }] };
    await ec2.change("ModifyInstanceAttribute", signal, (client, options) =>
      client.send(new ModifyInstanceAttributeCommand(input), options),
    );
  }

  /** Waits until the disk is there, since EC2 takes no setting of it before. */
  async function attached(volumeId: string, serverId: string, signal: AbortSignal) {
    return ec2.until(signal, async () => {
      const volume = await volumeById(ec2, volumeId, signal);
      if (volume === undefined) throw missing("volume", volumeId);
      const held = volume.Attachments?.find(({ InstanceId }) => InstanceId === serverId);
      if (held === undefined && volume.State === "available") {
        const message = `volume ${volumeId} was detached from ${serverId} while it was being attached`;
        throw new OperationalError("cloud.conflict", message);
      }
      return held?.State === "attached" ? held : undefined;
    });
  }

  return {
    pages: async function* (select, ids, signal) {
      const volumeIds = ids?.map((id) => endsOf(id)[0]);
      const Filters = [
        ...select,
        ...(volumeIds === undefined
          ? filters({ "attachment.status": ["attaching", "attached"] })
          : filters({ "volume-id": volumeIds })),
      ];
      for await (const page of volumePages(ec2, Filters, signal)) {
        yield page
          .flatMap(attachmentsFromVolume)
          .filter((resource) => ids === undefined || ids.includes(resource.id))
          .map((resource): Observed<"volumeAttachment"> => observed(resource));
      }
    },
    tagTarget: async () => undefined,
    create: async ({ kind, spec }, signal) => {
      const { volumeId, serverId } = spec;
      const input = { VolumeId: volumeId, InstanceId: serverId, Device: spec.device };
      await ec2
        .change("AttachVolume", signal, (client, options) =>
          client.send(new AttachVolumeCommand(input), options),
        )
        .catch(async (error: unknown) => {
          if (!isOperational(error, "cloud.conflict")) throw error;
          const held = (await volumeById(ec2, volumeId, signal))?.Attachments ?? [];
          if (!held.some(({ InstanceId, State }) => InstanceId === serverId && State !== "detaching")) {
            throw error;
          }
        });
      await onceThere(async () => {
        const seen = await attached(volumeId, serverId, signal);
        if ((seen.DeleteOnTermination ?? false) !== spec.deleteOnTermination) {
          await endWithServer({ ...spec, device: seen.Device ?? spec.device }, signal);
        }
      });
      const id = volumeAttachmentId(volumeId, serverId);
      return observed<"volumeAttachment">({ kind, id, spec, tags: {} });
    },
    update: async (id, set, signal) => {
      const { deleteOnTermination, ...others } = set;
      const [volumeId, serverId] = endsOf(id);
      const volume = await volumeById(ec2, volumeId, signal);
      const held = volume === undefined ? undefined : attachmentsFromVolume(volume)[0];
      if (held === undefined || held.spec.serverId !== serverId) throw missing("volume attachment", id);
      if (Object.keys(others).length > 0) {
        const message = `of attachment ${id} only deleteOnTermination can be changed`;
        throw new OperationalError("cloud.unsupported", message);
      }
      if (deleteOnTermination !== undefined) {
        await endWithServer({ ...held.spec, deleteOnTermination }, signal);
      }
    },
    delete: (id, signal) => detach(ec2, ...endsOf(id), signal),
  };
}

/** EC2 tells the IOPS of every volume, and takes them back for some types only. From another site they come without a type. */
function typeAndIops({ type, iops }: VolumeSpec): { VolumeType?: "gp3"; Iops?: number } {
  if (type !== undefined) {
    const provisioned = type === "gp3" || type === "io1" || type === "io2";
    return { VolumeType: type as "gp3", ...(provisioned && iops !== undefined ? { Iops: iops } : {}) };
  }
  if (iops === undefined) return {};
  // Every gp3 volume has 3,000, and none has more than 16,000.
  if (iops <= 3000) return { VolumeType: "gp3" };
  return { VolumeType: (iops <= 16_000 ? "gp3" : "io2") as "gp3", Iops: iops };
}
