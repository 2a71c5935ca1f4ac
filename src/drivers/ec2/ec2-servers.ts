/** Instances: made by RunInstances with a client token, one at a time. */
import type { Instance, RunInstancesRequest } from "@aws-sdk/client-ec2";
import {
  DescribeInstancesCommand,
  RunInstancesCommand,
  TerminateInstancesCommand,
} from "@aws-sdk/client-ec2";
import type { CreateRequest, Observed, ResourceStatus } from "#cloud/contract.ts";
import { onceThere } from "#cloud/once-there.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { invariant } from "#kernel/invariant.ts";
import type { ServerSpec } from "#model/resource.ts";
import { serverFromInstance } from "#wire/ec2/ec2-resources.ts";
import type { Ec2Connection } from "./ec2-connection.ts";
import { filters } from "./ec2-connection.ts";
import type { Ec2Kind } from "./ec2-kind.ts";
import { markedTags, observed, tokenFilter, unlessGone } from "./ec2-kind.ts";
import { changeServer } from "./ec2-server-update.ts";

const statuses: ReadonlyMap<string, ResourceStatus> = new Map([
  ["pending", "pending"],
  ["running", "ready"],
  ["stopping", "pending"],
  ["stopped", "stopped"],
  ["shutting-down", "deleting"],
]);

/** Terminated by someone's wish, and so just gone; any other reason is a failure that must be seen. */
const wished =
  /^(Client\.UserInitiatedShutdown|Client\.InstanceInitiatedShutdown|Client\.UserInitiatedHibernate)$/;

function faultOf({ State, StateReason }: Instance): string | undefined {
  if (State?.Name !== "terminated" && State?.Name !== "stopped") return undefined;
  const code = StateReason?.Code;
  if (!code || wished.test(code)) return undefined;
  return StateReason?.Message || code;
}

/** `undefined`: it is gone. */
export function observeInstance(instance: Instance): Observed<"server"> | undefined {
  const fault = faultOf(instance);
  const status = fault === undefined ? statuses.get(instance.State?.Name ?? "") : "failed";
  if (status === undefined) return undefined;
  const privateIps = instance.PrivateIpAddress ? [instance.PrivateIpAddress] : [];
  const publicIps = instance.PublicIpAddress ? [instance.PublicIpAddress] : [];
  return observed(serverFromInstance(instance), status, {
    privateIps,
    publicIps,
    ...(fault === undefined ? {} : { fault }),
  });
}

export function launchRequest(request: CreateRequest<"server">): RunInstancesRequest {
  const { spec } = request;
  const disks = spec.blockDevices.map((disk) => ({
    DeviceName: disk.device,
    Ebs: {
      VolumeSize: disk.sizeGiB,
      VolumeType: disk.type as "gp3" | undefined,
      SnapshotId: disk.snapshotId,
      DeleteOnTermination: disk.deleteOnTermination,
    },
  }));
  const inSubnet = spec.subnetId !== undefined;
  const Groups = spec.groupIds.length === 0 ? undefined : [...spec.groupIds];
  return {
    MinCount: 1,
    MaxCount: 1,
    ClientToken: request.token,
    ImageId: spec.imageId,
    InstanceType: spec.type as NonNullable<RunInstancesRequest["InstanceType"]>,
    KeyName: spec.keyName,
    UserData: spec.userData,
    BlockDeviceMappings: disks.length === 0 ? undefined : disks,
    TagSpecifications: markedTags(request, "instance", ...(disks.length === 0 ? [] : (["volume"] as const))),
    ...(inSubnet
      ? {
          NetworkInterfaces: [
            {
              DeviceIndex: 0,
              SubnetId: spec.subnetId,
              Groups,
              AssociatePublicIpAddress: spec.publicAddress,
              PrivateIpAddress: spec.privateIp,
              DeleteOnTermination: true,
            },
          ],
        }
      : {
          SecurityGroupIds: Groups,
          PrivateIpAddress: spec.privateIp,
          Placement: spec.zone === undefined ? undefined : { AvailabilityZone: spec.zone },
        }),
  };
}

export function ec2Servers(ec2: Ec2Connection): Ec2Kind<"server"> {
  /** Those deleted here whose failure EC2 still shows for an hour. */
  const deleted = new Set<string>();

  async function describe(
    select: Parameters<Ec2Kind<"server">["pages"]>[0],
    signal: AbortSignal,
  ): Promise<Instance | undefined> {
    const answer = await ec2.read("DescribeInstances", signal, (client, options) =>
      client.send(new DescribeInstancesCommand({ Filters: [...select] }), options),
    );
    return answer.Reservations?.flatMap(({ Instances }) => Instances ?? [])[0];
  }

  const byId = (id: string, signal: AbortSignal) => describe(filters({ "instance-id": id }), signal);

  async function launch(request: CreateRequest<"server">, signal: AbortSignal): Promise<Instance> {
    const again = request.mayExist ? await describe([tokenFilter(request.token)], signal) : undefined;
    if (again !== undefined) return again;
    const answer = await ec2.change("RunInstances", signal, (client, options) =>
      client.send(new RunInstancesCommand(launchRequest(request)), options),
    );
    const instance = answer.Instances?.[0];
    invariant(instance?.InstanceId, "EC2 acknowledged RunInstances without an instance");
    return instance;
  }

  return {
    pages: async function* (select, ids, signal) {
      const Filters = [...select, ...filters({ "instance-id": ids })];
      const answers = ec2.pages("DescribeInstances", signal, (client, paging, options) =>
        client.send(new DescribeInstancesCommand({ Filters, ...paging }), options),
      );
      for await (const { Reservations = [] } of answers) {
        yield Reservations.flatMap(({ Instances }) => Instances ?? [])
          .filter(({ InstanceId, State }) => State?.Name !== "terminated" || !deleted.has(InstanceId ?? ""))
          .flatMap((instance) => observeInstance(instance) ?? []);
      }
    },
    tagTarget: async (id) => id,
    create: async (request, signal) => {
      const instance = await launch(request, signal);
      const serverId = instance.InstanceId ?? "";
      const { kind, spec, tags } = request;
      const seen = observeInstance(instance);
      const status = seen?.status ?? "pending";
      // EC2 makes no stopped servers: it is stopped as soon as it can be.
      if (spec.power === "stopped" && status !== "failed") {
        await onceThere(() =>
          changeServer(ec2, serverId, { power: "stopped" }, (id) => byId(id, signal), signal),
        );
      }
      const resource = { kind, id: serverId as ResourceId, spec: { ...seen?.resource.spec, ...spec }, tags };
      return observed<"server">(resource, spec.power === "stopped" ? "stopped" : status, {
        ...(seen?.fault === undefined ? {} : { fault: seen.fault }),
        privateIps: [...(seen?.addresses.private ?? [])],
        publicIps: [...(seen?.addresses.public ?? [])],
      });
    },
    update: async (id, set, signal) => {
      const { type: _type, groupIds: _groups, userData: _data, power: _power, ...others } = set;
      const fixed = Object.keys(others satisfies Partial<ServerSpec>);
      if (fixed.length > 0) {
        const message = `of server ${id}, ${fixed.join(", ")} cannot be changed: make another one`;
        throw new OperationalError("cloud.unsupported", message);
      }
      await changeServer(ec2, id, set, (serverId) => byId(serverId, signal), signal);
    },
    delete: async (id, signal) => {
      const before = await byId(id, signal);
      if (before === undefined) return;
      if (before.State?.Name !== "terminated") {
        await unlessGone(
          ec2.change("TerminateInstances", signal, (client, options) =>
            client.send(new TerminateInstancesCommand({ InstanceIds: [id] }), options),
          ),
        );
        await ec2.until(signal, async () => {
          const state = (await byId(id, signal))?.State?.Name;
          return state === undefined || state === "terminated" ? true : undefined;
        });
      }
      deleted.add(id);
    },
  };
}
