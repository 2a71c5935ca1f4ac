/** Instances. */
import type * as Api from "@aws-sdk/client-ec2";
import { find, findAll } from "#devcloud/core/cloud.ts";
import type { ServerRecord } from "#devcloud/core/records.ts";
import {
  checkCapacity,
  findServerType,
  rebootServer,
  startServer,
  stopServer,
  terminateServer,
} from "#devcloud/core/servers.ts";
import { setPortGroups } from "#devcloud/core/ports.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import { type Answer, type Ec2, type Operation, onceByToken, required, requiredList } from "./ec2-context.ts";
import { invalidValue } from "./ec2-error.ts";
import { compileFilters } from "./ec2-filter.ts";
import { instance, instanceFields, instanceState, reservations } from "./ec2-instance.ts";
import { checkedUserData, launch } from "./ec2-launch.ts";
import { pageOf } from "./ec2-page.ts";

/** All or none: each id is looked up before any changes. */
function changeStates(
  ec2: Ec2,
  ids: readonly string[] | undefined,
  change: (id: string) => ServerRecord,
): Api.InstanceStateChange[] {
  const servers = findAll(ec2.cloud, "server", [...new Set(requiredList(ids, "InstanceId"))]);
  return servers.map((server) => ({
    InstanceId: server.id,
    PreviousState: instanceState(server.state),
    CurrentState: instanceState(change(server.id).state),
  }));
}

function passed(ec2: Ec2, server: ServerRecord): "ok" | "impaired" | "not-applicable" | "initializing" {
  if (server.state === "pending") return "initializing";
  if (server.state !== "running") return "not-applicable";
  return ec2.compute.status(server.id) === "exited" ? "impaired" : "ok";
}

function instanceStatus(ec2: Ec2, server: ServerRecord): Api.InstanceStatus {
  const status = passed(ec2, server);
  const summary = (value: typeof status): Api.InstanceStatusSummary => ({
    Status: value,
    ...(value === "not-applicable"
      ? {}
      : {
          Details: [
            {
              Name: "reachability",
              Status: value === "ok" ? "passed" : value === "impaired" ? "failed" : "initializing",
            },
          ],
        }),
  });
  return {
    InstanceId: server.id,
    AvailabilityZone: server.zone,
    InstanceState: instanceState(server.state),
    InstanceStatus: summary(status),
    // The host is well whenever this cloud answers at all.
    SystemStatus: summary(status === "impaired" ? "ok" : status),
  };
}

function stopped(server: ServerRecord, attribute: string): void {
  if (server.state !== "stopped" && server.state !== "failed") {
    throw new AwsProtocolError(
      "IncorrectInstanceState",
      `The instance '${server.id}' is not in the 'stopped' state: stop it before changing ${attribute}.`,
    );
  }
}

function protection(
  server: ServerRecord,
  against: "termination" | "stop",
  on: boolean,
): ServerRecord["protectedAgainst"] {
  return [...server.protectedAgainst.filter((each) => each !== against), ...(on ? [against] : [])];
}

/** The old form names one attribute and a text value; both forms become the new one. */
function attributeInput(
  input: Api.ModifyInstanceAttributeCommandInput,
): Api.ModifyInstanceAttributeCommandInput {
  const { Attribute: name, Value: value, ...rest } = input;
  if (name === undefined || value === undefined) return input;
  switch (name as string) {
    case "instanceType":
      return { ...rest, InstanceType: { Value: value } };
    case "userData":
      return { ...rest, UserData: { Value: value as unknown as Uint8Array } };
    case "instanceInitiatedShutdownBehavior":
      return { ...rest, InstanceInitiatedShutdownBehavior: { Value: value } };
    case "disableApiTermination":
      return { ...rest, DisableApiTermination: { Value: value === "true" } };
    case "disableApiStop":
      return { ...rest, DisableApiStop: { Value: value === "true" } };
    case "ebsOptimized":
      return { ...rest, EbsOptimized: { Value: value === "true" } };
    default:
      throw new AwsProtocolError("UnsupportedOperation", `Changing ${name} is not supported here.`);
  }
}

function modifyDisks(ec2: Ec2, server: ServerRecord, input: Api.ModifyInstanceAttributeCommandInput): void {
  const { volume: volumes } = ec2.cloud.data.tables;
  for (const mapping of input.BlockDeviceMappings ?? []) {
    const volume = volumes
      .by("server", server.id)
      .find((each) => each.attachment?.device === mapping.DeviceName);
    if (volume === undefined || volume.attachment === null) {
      throw new AwsProtocolError(
        "InvalidInstanceAttributeValue",
        `No device is currently mapped at ${mapping.DeviceName ?? ""}`,
      );
    }
    const deleteOnTermination = mapping.Ebs?.DeleteOnTermination ?? volume.attachment.deleteOnTermination;
    volumes.put({ ...volume, attachment: { ...volume.attachment, deleteOnTermination } });
  }
}

function modifyAttribute(ec2: Ec2, raw: Api.ModifyInstanceAttributeCommandInput): void {
  const input = attributeInput(raw);
  const server = find(ec2.cloud, "server", required(input.InstanceId, "instanceId"));
  if (server.state === "terminated" || server.state === "shutting-down") {
    throw new AwsProtocolError(
      "IncorrectInstanceState",
      `The instance '${server.id}' is '${server.state}': its attributes cannot be changed.`,
    );
  }
  modifyDisks(ec2, server, input);
  const portId = server.portIds[0];
  if (input.Groups?.length && portId !== undefined) setPortGroups(ec2.cloud, portId, input.Groups);
  if (input.SourceDestCheck?.Value !== undefined && portId !== undefined) {
    const port = find(ec2.cloud, "port", portId);
    ec2.cloud.data.tables.port.put({
      ...port,
      extra: { ...port.extra, sourceDestCheck: input.SourceDestCheck.Value },
    });
  }
  let changed = server;
  const type = input.InstanceType?.Value;
  if (type !== undefined) {
    findServerType(ec2.cloud, type);
    stopped(server, "instanceType");
    changed = { ...changed, type };
  }
  if (input.UserData !== undefined) {
    stopped(server, "userData");
    changed = {
      ...changed,
      userData: checkedUserData(input.UserData.Value as unknown as string | undefined),
    };
  }
  const behaviour = input.InstanceInitiatedShutdownBehavior?.Value;
  if (behaviour !== undefined) {
    if (behaviour !== "stop" && behaviour !== "terminate") {
      throw invalidValue(behaviour, "instanceInitiatedShutdownBehavior");
    }
    changed = { ...changed, onShutdown: behaviour };
  }
  const { DisableApiTermination: keep, DisableApiStop: on, EbsOptimized: optimized } = input;
  if (keep?.Value !== undefined) {
    changed = { ...changed, protectedAgainst: protection(changed, "termination", keep.Value) };
  }
  if (on?.Value !== undefined) {
    changed = { ...changed, protectedAgainst: protection(changed, "stop", on.Value) };
  }
  if (optimized?.Value !== undefined) {
    stopped(server, "ebsOptimized");
    changed = { ...changed, extra: { ...changed.extra, ebsOptimized: optimized.Value } };
  }
  if (changed !== server) ec2.cloud.data.tables.server.put(changed);
}

function describeAttribute(
  ec2: Ec2,
  server: ServerRecord,
  attribute: string,
): Answer<Api.DescribeInstanceAttributeCommandOutput> {
  const shown = instance(ec2, server);
  switch (attribute) {
    case "instanceType":
      return { InstanceType: { Value: server.type } };
    case "userData":
      return { UserData: server.userData === null ? {} : { Value: server.userData } };
    case "disableApiTermination":
      return { DisableApiTermination: { Value: server.protectedAgainst.includes("termination") } };
    case "disableApiStop":
      return { DisableApiStop: { Value: server.protectedAgainst.includes("stop") } };
    case "instanceInitiatedShutdownBehavior":
      return { InstanceInitiatedShutdownBehavior: { Value: server.onShutdown } };
    case "rootDeviceName":
      return { RootDeviceName: { Value: server.rootDevice } };
    case "blockDeviceMapping":
      return { BlockDeviceMappings: shown.BlockDeviceMappings };
    case "groupSet":
      return { Groups: shown.SecurityGroups };
    case "sourceDestCheck":
      return { SourceDestCheck: { Value: shown.SourceDestCheck ?? true } };
    case "ebsOptimized":
      return { EbsOptimized: { Value: shown.EbsOptimized ?? false } };
    case "enaSupport":
      return { EnaSupport: { Value: true } };
    case "kernel":
    case "ramdisk":
    case "sriovNetSupport":
      return {};
    default:
      throw invalidValue(attribute, "attribute", "Unknown attribute.");
  }
}

export const serverOperations = {
  RunInstances(ec2: Ec2, input: Api.RunInstancesCommandInput): Answer<Api.RunInstancesCommandOutput> {
    const ids = onceByToken(ec2, "RunInstances", input, () => launch(ec2, input));
    const servers = ids.flatMap((id) => ec2.cloud.data.tables.server.get(id) ?? []);
    return reservations(ec2, servers)[0] ?? {};
  },

  TerminateInstances(
    ec2: Ec2,
    input: Api.TerminateInstancesCommandInput,
  ): Answer<Api.TerminateInstancesCommandOutput> {
    return {
      TerminatingInstances: changeStates(ec2, input.InstanceIds, (id) => terminateServer(ec2.cloud, id)),
    };
  },

  StartInstances(ec2: Ec2, input: Api.StartInstancesCommandInput): Answer<Api.StartInstancesCommandOutput> {
    return {
      StartingInstances: changeStates(ec2, input.InstanceIds, (id) => {
        const { state, type, zone } = find(ec2.cloud, "server", id);
        if (state === "stopped" || state === "failed") checkCapacity(ec2.cloud, type, 1, zone);
        return startServer(ec2.cloud, id);
      }),
    };
  },

  StopInstances(ec2: Ec2, input: Api.StopInstancesCommandInput): Answer<Api.StopInstancesCommandOutput> {
    return { StoppingInstances: changeStates(ec2, input.InstanceIds, (id) => stopServer(ec2.cloud, id)) };
  },

  RebootInstances(ec2: Ec2, input: Api.RebootInstancesCommandInput): object {
    changeStates(ec2, input.InstanceIds, (id) => rebootServer(ec2.cloud, id));
    return {};
  },

  DescribeInstances(
    ec2: Ec2,
    input: Api.DescribeInstancesCommandInput,
  ): Answer<Api.DescribeInstancesCommandOutput> {
    if (input.InstanceIds?.length && input.MaxResults !== undefined) {
      throw new AwsProtocolError(
        "InvalidParameterCombination",
        "The parameter instancesSet cannot be used with the parameter maxResults",
      );
    }
    const keep = compileFilters(input.Filters, instanceFields(ec2));
    const all = ec2.cloud.data.tables.server.values();
    const chosen = input.InstanceIds?.length
      ? findAll(ec2.cloud, "server", [...new Set(input.InstanceIds)])
      : all;
    const page = pageOf(chosen, keep, input);
    return { Reservations: reservations(ec2, page.items), NextToken: page.nextToken };
  },

  DescribeInstanceStatus(
    ec2: Ec2,
    input: Api.DescribeInstanceStatusCommandInput,
  ): Answer<Api.DescribeInstanceStatusCommandOutput> {
    const fields = instanceFields(ec2);
    const keep = compileFilters<ServerRecord>(input.Filters, {
      "availability-zone": (server) => server.zone,
      "instance-state-name": fields["instance-state-name"] ?? (() => undefined),
      "instance-state-code": fields["instance-state-code"] ?? (() => undefined),
      "instance-status.status": (server) => passed(ec2, server),
      "instance-status.reachability": (server) =>
        ({ ok: "passed", impaired: "failed", initializing: "initializing", "not-applicable": undefined })[
          passed(ec2, server)
        ],
      "system-status.status": (server) => instanceStatus(ec2, server).SystemStatus?.Status,
    });
    const wanted = (server: ServerRecord): boolean =>
      (input.IncludeAllInstances === true || server.state === "running") && keep(server);
    const all = ec2.cloud.data.tables.server.values();
    const chosen = input.InstanceIds?.length ? findAll(ec2.cloud, "server", input.InstanceIds) : all;
    const page = pageOf(chosen, wanted, input);
    return {
      InstanceStatuses: page.items.map((each) => instanceStatus(ec2, each)),
      NextToken: page.nextToken,
    };
  },

  DescribeInstanceAttribute(
    ec2: Ec2,
    input: Api.DescribeInstanceAttributeCommandInput,
  ): Answer<Api.DescribeInstanceAttributeCommandOutput> {
    const server = find(ec2.cloud, "server", required(input.InstanceId, "instanceId"));
    const attribute = required<string>(input.Attribute, "attribute");
    return { InstanceId: server.id, ...describeAttribute(ec2, server, attribute) };
  },

  ModifyInstanceAttribute(ec2: Ec2, input: Api.ModifyInstanceAttributeCommandInput): object {
    modifyAttribute(ec2, input);
    return {};
  },

  GetConsoleOutput(
    ec2: Ec2,
    input: Api.GetConsoleOutputCommandInput,
  ): Answer<Api.GetConsoleOutputCommandOutput> {
    const server = find(ec2.cloud, "server", required(input.InstanceId, "instanceId"));
    return {
      InstanceId: server.id,
      Timestamp: new Date(ec2.cloud.clock.now()),
      Output: ec2.compute.console(server.id).toString("base64"),
    };
  },
} satisfies Readonly<Record<string, Operation>>;
