import type { Image, InstanceTypeInfo } from "@aws-sdk/client-ec2";
import {
  DescribeAvailabilityZonesCommand,
  DescribeImagesCommand,
  DescribeInstanceTypesCommand,
} from "@aws-sdk/client-ec2";
import type { Catalogue, ImageInfo, ServerType } from "#cloud/contract.ts";
import type { Ec2Connection } from "./ec2-connection.ts";

function serverType(info: InstanceTypeInfo): ServerType {
  const architectures = info.ProcessorInfo?.SupportedArchitectures ?? [];
  // Old types take 32-bit systems too; what counts is the widest.
  const architecture =
    architectures.find((name) => name === "x86_64" || name === "arm64") ?? architectures[0];
  return {
    name: info.InstanceType ?? "",
    vcpus: info.VCpuInfo?.DefaultVCpus ?? 0,
    memoryMiB: info.MemoryInfo?.SizeInMiB ?? 0,
    gpus: (info.GpuInfo?.Gpus ?? []).reduce((sum, { Count }) => sum + (Count ?? 0), 0),
    architecture: architecture ?? "x86_64",
  };
}

function imageInfo({ ImageId, Name, Architecture }: Image): ImageInfo {
  return { id: ImageId ?? "", name: Name ?? ImageId ?? "", architecture: Architecture ?? "x86_64" };
}

export async function ec2Zones(ec2: Ec2Connection, signal: AbortSignal): Promise<string[]> {
  const answer = await ec2.read("DescribeAvailabilityZones", signal, (client, options) =>
    client.send(new DescribeAvailabilityZonesCommand({}), options),
  );
  return (answer.AvailabilityZones ?? []).flatMap(({ ZoneName, State }) =>
    ZoneName === undefined || (State !== undefined && State !== "available") ? [] : [ZoneName],
  );
}

/** Images of the account itself, and those named; never the whole public list, which has ten thousands. */
async function images(ec2: Ec2Connection, ids: readonly string[], signal: AbortSignal): Promise<ImageInfo[]> {
  const asked = [{ Owners: ["self"] }, ...(ids.length === 0 ? [] : [{ ImageIds: [...ids] }])];
  const found = new Map<string, ImageInfo>();
  for (const input of asked) {
    const answer = await ec2.read("DescribeImages", signal, (client, options) =>
      client.send(new DescribeImagesCommand(input), options),
    );
    for (const image of (answer.Images ?? []).map(imageInfo)) found.set(image.id, image);
  }
  return [...found.values()];
}

export async function ec2Catalogue(
  ec2: Ec2Connection,
  imageIds: readonly string[],
  signal: AbortSignal,
): Promise<Catalogue> {
  const types: ServerType[] = [];
  const pages = ec2.pages("DescribeInstanceTypes", signal, (client, paging, options) => {
    // This listing takes pages of 100 at most.
    const input = { ...paging, MaxResults: Math.min(paging.MaxResults, 100) };
    return client.send(new DescribeInstanceTypesCommand(input), options);
  });
  for await (const { InstanceTypes = [] } of pages) types.push(...InstanceTypes.map(serverType));
  return {
    types: types.filter(({ vcpus, memoryMiB }) => vcpus > 0 && memoryMiB > 0),
    images: await images(ec2, imageIds, signal),
    zones: await ec2Zones(ec2, signal),
  };
}
