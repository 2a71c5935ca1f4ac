/**
 * Changes of a server. Type and user data need it stopped: a tag remembers that it ran, so that whoever finishes an
 * interrupted change starts it again.
 */
import type { Instance } from "@aws-sdk/client-ec2";
import {
  CreateTagsCommand,
  DeleteTagsCommand,
  ModifyInstanceAttributeCommand,
  StartInstancesCommand,
  StopInstancesCommand,
} from "@aws-sdk/client-ec2";
import { OperationalError } from "#kernel/errors.ts";
import type { ServerSpec } from "#model/resource.ts";
import type { Ec2Connection } from "./ec2-connection.ts";
import { missing } from "./ec2-kind.ts";

const restartTag = "understudy:restart";

type Look = (id: string) => Promise<Instance | undefined>;

interface Change {
  readonly ec2: Ec2Connection;
  readonly id: string;
  readonly look: Look;
  readonly signal: AbortSignal;
}

async function reach({ ec2, id, look, signal }: Change, wanted: "running" | "stopped"): Promise<void> {
  await ec2.until(signal, async () => {
    const instance = await look(id);
    const state = instance?.State?.Name;
    if (instance === undefined || state === "terminated" || state === "shutting-down") {
      throw missing("server", id);
    }
    return state === wanted ? true : undefined;
  });
}

/** From whatever state it is in, also one on its way elsewhere. */
async function power(change: Change, wanted: "running" | "stopped"): Promise<void> {
  const { ec2, id, look, signal } = change;
  const state = (await look(id))?.State?.Name;
  if (state === wanted) return;
  const input = { InstanceIds: [id] };
  if (wanted === "stopped") {
    if (state === "pending") await reach(change, "running");
    if (state !== "stopping") {
      await ec2.change("StopInstances", signal, (client, options) =>
        client.send(new StopInstancesCommand(input), options),
      );
    }
  } else {
    if (state === "stopping") await reach(change, "stopped");
    if (state !== "pending") {
      await ec2.change("StartInstances", signal, (client, options) =>
        client.send(new StartInstancesCommand(input), options),
      );
    }
  }
  await reach(change, wanted);
}

async function modifyStopped(change: Change, set: Partial<ServerSpec>): Promise<void> {
  const { ec2, id, signal } = change;
  const inputs = [
    ...(set.type === undefined ? [] : [{ InstanceType: { Value: set.type } }]),
    ...(set.userData === undefined
      ? []
      : [{ UserData: { Value: new Uint8Array(Buffer.from(set.userData, "base64")) } }]),
  ];
  for (const input of inputs) {
    await ec2.change("ModifyInstanceAttribute", signal, (client, options) =>
      client.send(new ModifyInstanceAttributeCommand({ InstanceId: id, ...input }), options),
    );
  }
}

async function markRestart({ ec2, id, signal }: Change, set: boolean): Promise<void> {
  const Resources = [id];
  await (set
    ? ec2.change("CreateTags", signal, (client, options) =>
        client.send(new CreateTagsCommand({ Resources, Tags: [{ Key: restartTag, Value: "1" }] }), options),
      )
    : ec2.change("DeleteTags", signal, (client, options) =>
        client.send(new DeleteTagsCommand({ Resources, Tags: [{ Key: restartTag }] }), options),
      ));
}

export async function changeServer(
  ec2: Ec2Connection,
  id: string,
  set: Partial<ServerSpec>,
  look: Look,
  signal: AbortSignal,
): Promise<void> {
  const change: Change = { ec2, id, look, signal };
  const instance = await look(id);
  const state = instance?.State?.Name;
  if (instance === undefined || state === "terminated" || state === "shutting-down") {
    throw missing("server", id);
  }
  if (set.groupIds !== undefined) {
    if (set.groupIds.length === 0) {
      const message = `server ${id} needs a security group: EC2 takes no empty list`;
      throw new OperationalError("cloud.unsupported", message);
    }
    const input = { InstanceId: id, Groups: [...set.groupIds] };
    await ec2.change("ModifyInstanceAttribute", signal, (client, options) =>
      client.send(new ModifyInstanceAttributeCommand(input), options),
    );
  }
  const interrupted = instance.Tags?.some(({ Key }) => Key === restartTag) ?? false;
  const resize = set.type !== undefined && set.type !== instance.InstanceType;
  const ran = interrupted || !["stopped", "stopping"].includes(state ?? "");
  const after = set.power ?? (ran ? "running" : "stopped");
  if (resize || set.userData !== undefined) {
    if (after === "running" && !interrupted) await markRestart(change, true);
    await power(change, "stopped");
    await modifyStopped(change, {
      ...(resize && set.type !== undefined ? { type: set.type } : {}),
      ...(set.userData === undefined ? {} : { userData: set.userData }),
    });
  }
  await power(change, after);
  const marked = interrupted || ((resize || set.userData !== undefined) && after === "running");
  if (marked) await markRestart(change, false);
}
