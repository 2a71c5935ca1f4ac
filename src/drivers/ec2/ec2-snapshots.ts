/**
 * Snapshots of EBS volumes and their blocks.
 * https://docs.aws.amazon.com/ebs/latest/userguide/ebs-accessing-snapshot.html
 */
import { createHash } from "node:crypto";
import {
  type EBSClient,
  GetSnapshotBlockCommand,
  ListChangedBlocksCommand,
  ListSnapshotBlocksCommand,
} from "@aws-sdk/client-ebs";
import type { Snapshot, SnapshotInfo } from "@aws-sdk/client-ec2";
import {
  CreateSnapshotCommand,
  CreateSnapshotsCommand,
  DeleteSnapshotCommand,
  DescribeInstancesCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
} from "@aws-sdk/client-ec2";
import type { DiskSnapshot, SnapshotBlock, SnapshotSource, TakeSnapshots } from "#cloud/snapshot-source.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import { tagsFromEc2, tagsToEc2 } from "#wire/ec2/ec2-tags.ts";
import { type Ec2Connection, filters } from "./ec2-connection.ts";
import { ec2Error } from "./ec2-errors.ts";

const gibibyte = 1024 ** 3;
/** Of EBS direct; an answer says it too. */
const defaultBlockBytes = 512 * 1024;

const states: ReadonlyMap<string, DiskSnapshot["state"]> = new Map([
  ["completed", "complete"],
  ["error", "failed"],
]);

/** `SnapshotInfo` is what `CreateSnapshots` answers with: the same, but for the state's message. */
function snapshotOf(seen: Snapshot & SnapshotInfo): DiskSnapshot {
  const state = states.get(seen.State ?? "") ?? "pending";
  const fault = seen.StateMessage;
  return {
    id: seen.SnapshotId ?? "",
    volumeId: seen.VolumeId ?? "",
    startedAt: seen.StartTime?.getTime() ?? 0,
    sizeBytes: (seen.VolumeSize ?? 0) * gibibyte,
    state,
    progress: state === "complete" ? 1 : (Number.parseInt(seen.Progress ?? "0", 10) || 0) / 100,
    ...(state !== "failed" || fault === undefined ? {} : { fault }),
    tags: tagsFromEc2(seen.Tags),
  };
}

interface ServerVolumes {
  /** Null: attached to nothing. */
  readonly serverId: string | null;
  readonly volumeIds: readonly string[];
}

/** The wanted volumes by the server that has them: those of one show one instant. */
async function byServer(
  ec2: Ec2Connection,
  volumeIds: readonly string[],
  signal: AbortSignal,
): Promise<readonly ServerVolumes[]> {
  const found = new Map<string, string | null>();
  for (let from = 0; from < volumeIds.length; from += 200) {
    const Filters = filters({ "volume-id": volumeIds.slice(from, from + 200) });
    const pages = ec2.pages("DescribeVolumes", signal, (client, paging, options) =>
      client.send(new DescribeVolumesCommand({ Filters, ...paging }), options),
    );
    for await (const { Volumes = [] } of pages) {
      for (const { VolumeId = "", Attachments } of Volumes)
        found.set(VolumeId, Attachments?.find(({ State }) => State !== "detached")?.InstanceId ?? null);
    }
  }
  const missing = volumeIds.filter((id) => !found.has(id));
  if (missing.length > 0) {
    throw new OperationalError(
      "cloud.not_found",
      `EC2 has no volume ${missing.join(", ")}: no snapshot was taken`,
    );
  }
  const groups = Map.groupBy(volumeIds, (id) => found.get(id) ?? null);
  return [...groups].flatMap(([serverId, ids]): ServerVolumes[] =>
    serverId === null ? ids.map((id) => ({ serverId, volumeIds: [id] })) : [{ serverId, volumeIds: ids }],
  );
}

/** Volumes of the server beside the wanted ones: a snapshot of all would cost what nobody asked for. */
async function excluded(
  ec2: Ec2Connection,
  serverId: string,
  wanted: readonly string[],
  signal: AbortSignal,
): Promise<{ ExcludeBootVolume: boolean; ExcludeDataVolumeIds?: string[] }> {
  const { Reservations = [] } = await ec2.read("DescribeInstances", signal, (client, options) =>
    client.send(new DescribeInstancesCommand({ InstanceIds: [serverId] }), options),
  );
  const server = Reservations.flatMap(({ Instances }) => Instances ?? [])[0];
  const devices = server?.BlockDeviceMappings ?? [];
  const boot = devices.find(({ DeviceName }) => DeviceName === server?.RootDeviceName)?.Ebs?.VolumeId;
  const others = devices.flatMap(({ Ebs }) => {
    const id = Ebs?.VolumeId;
    return id === undefined || id === boot || wanted.includes(id) ? [] : [id];
  });
  return {
    ExcludeBootVolume: boot === undefined || !wanted.includes(boot),
    ...(others.length === 0 ? {} : { ExcludeDataVolumeIds: others }),
  };
}

export function ec2Snapshots(ec2: Ec2Connection, ebs: () => EBSClient): SnapshotSource {
  async function takeOf(
    { serverId, volumeIds }: ServerVolumes,
    tags: TakeSnapshots["tags"],
    signal: AbortSignal,
  ): Promise<readonly DiskSnapshot[]> {
    const TagSpecifications = [{ ResourceType: "snapshot" as const, Tags: tagsToEc2(tags) }];
    const Description = "taken by Understudy";
    const [only] = volumeIds;
    if (serverId === null || only === undefined) {
      const taken = await ec2.change("CreateSnapshot", signal, (client, options) =>
        client.send(new CreateSnapshotCommand({ VolumeId: only, Description, TagSpecifications }), options),
      );
      return [snapshotOf(taken)];
    }
    const InstanceSpecification = {
      InstanceId: serverId,
      ...(await excluded(ec2, serverId, volumeIds, signal)),
    };
    const { Snapshots = [] } = await ec2.change("CreateSnapshots", signal, (client, options) =>
      client.send(
        new CreateSnapshotsCommand({ InstanceSpecification, Description, TagSpecifications }),
        options,
      ),
    );
    return Snapshots.map(snapshotOf);
  }

  /** Reads of EBS direct: errors and time-outs as EC2's own. */
  async function ask<T>(
    operation: string,
    signal: AbortSignal,
    run: (client: EBSClient) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted();
    try {
      return await run(ebs());
    } catch (error) {
      if (signal.aborted) throw signal.reason as Error;
      const { name, Reason } = error as { name?: string; Reason?: string };
      // https://docs.aws.amazon.com/ebs/latest/APIReference/API_ValidationException.html
      if (name === "ValidationException" && /^(INVALID_BLOCK_TOKEN|INVALID_PAGE_TOKEN)$/.test(Reason ?? "")) {
        throw new OperationalError("cloud.conflict", `${operation}: a token has expired`, {
          remoteCode: Reason ?? name,
          cause: error,
        });
      }
      throw ec2Error(error, operation, false);
    }
  }

  async function* pagesOf(
    { id, base }: { readonly id: string; readonly base: string | null },
    from: number,
    signal: AbortSignal,
  ): AsyncIterable<readonly SnapshotBlock[]> {
    let StartingBlockIndex = from;
    let NextToken: string | undefined;
    do {
      const paging = { StartingBlockIndex, ...(NextToken === undefined ? {} : { NextToken }) };
      const page = await pageOf(id, base, paging, signal).catch((error: unknown) => {
        // A page's token lives for an hour: the list goes on by number then.
        if (NextToken === undefined || !isOperational(error, "cloud.conflict")) throw error;
        return { blocks: [], next: undefined, again: true };
      });
      if ("again" in page) {
        NextToken = undefined;
        continue;
      }
      const last = page.blocks.at(-1);
      if (last !== undefined) StartingBlockIndex = last.offset / last.length + 1;
      yield page.blocks;
      NextToken = page.next;
      if (NextToken === undefined) return;
    } while (true);
  }

  async function pageOf(
    id: string,
    base: string | null,
    paging: { StartingBlockIndex: number; NextToken?: string },
    signal: AbortSignal,
  ): Promise<{ readonly blocks: readonly SnapshotBlock[]; readonly next: string | undefined }> {
    const options = { abortSignal: signal };
    if (base === null) {
      const answer = await ask("ListSnapshotBlocks", signal, (client) =>
        client.send(new ListSnapshotBlocksCommand({ SnapshotId: id, ...paging }), options),
      );
      const length = answer.BlockSize ?? defaultBlockBytes;
      const blocks = (answer.Blocks ?? []).map(({ BlockIndex = 0, BlockToken = "" }) => ({
        offset: BlockIndex * length,
        length,
        content: { kind: "data" as const, token: BlockToken },
      }));
      return { blocks, next: answer.NextToken };
    }
    const request = { FirstSnapshotId: base, SecondSnapshotId: id, ...paging };
    const answer = await ask("ListChangedBlocks", signal, (client) =>
      client.send(new ListChangedBlocksCommand(request), options),
    );
    const length = answer.BlockSize ?? defaultBlockBytes;
    const blocks = (answer.ChangedBlocks ?? []).map(({ BlockIndex = 0, SecondBlockToken }) => ({
      offset: BlockIndex * length,
      length,
      // Without a token of the second snapshot, the block is not in it.
      content:
        SecondBlockToken === undefined
          ? { kind: "zero" as const }
          : { kind: "data" as const, token: SecondBlockToken },
    }));
    return { blocks, next: answer.NextToken };
  }

  return {
    async take({ volumeIds, tags }, signal) {
      const taken: DiskSnapshot[] = [];
      for (const volumes of await byServer(ec2, volumeIds, signal)) {
        try {
          taken.push(...(await takeOf(volumes, tags, signal)));
        } catch (error) {
          if (taken.length === 0 || !isOperational(error)) throw error;
          const { code, message, detail, retry } = error;
          throw new OperationalError(code, message, {
            outcome: "unknown",
            retry,
            cause: error,
            ...(detail === undefined ? {} : { detail }),
          });
        }
      }
      return taken;
    },

    async list(tags, signal) {
      const Filters = filters(
        Object.fromEntries(Object.entries(tags).map(([key, value]) => [`tag:${key}`, value])),
      );
      const found: DiskSnapshot[] = [];
      const pages = ec2.pages("DescribeSnapshots", signal, (client, paging, options) =>
        client.send(new DescribeSnapshotsCommand({ OwnerIds: ["self"], Filters, ...paging }), options),
      );
      for await (const { Snapshots = [] } of pages) found.push(...Snapshots.map(snapshotOf));
      return found;
    },

    changes: ({ id, base, fromBytes }, signal) =>
      pagesOf({ id, base }, Math.floor(fromBytes / defaultBlockBytes), signal),

    async read(SnapshotId, { offset, length, token: BlockToken }, signal) {
      const BlockIndex = offset / length;
      const request = { SnapshotId, BlockIndex, BlockToken };
      const bytes = await ask("GetSnapshotBlock", signal, async (client) => {
        const answer = await client.send(new GetSnapshotBlockCommand(request), { abortSignal: signal });
        const data = (await answer.BlockData?.transformToByteArray()) ?? new Uint8Array();
        return { data: Buffer.from(data.buffer, data.byteOffset, data.length), checksum: answer.Checksum };
      });
      const sum = createHash("sha256").update(bytes.data).digest("base64");
      if (bytes.data.length !== length || sum !== bytes.checksum) {
        throw new OperationalError(
          "cloud.protocol",
          `block ${BlockIndex} of snapshot ${SnapshotId} came with a wrong checksum: it is asked for again`,
          { detail: `${bytes.data.length} bytes, SHA-256 ${sum}, announced ${bytes.checksum ?? "none"}` },
        );
      }
      return bytes.data;
    },

    async remove(SnapshotId, signal) {
      try {
        await ec2.change("DeleteSnapshot", signal, (client, options) =>
          client.send(new DeleteSnapshotCommand({ SnapshotId }), options),
        );
      } catch (error) {
        if (!isOperational(error, "cloud.not_found")) throw error;
      }
    },
  };
}
