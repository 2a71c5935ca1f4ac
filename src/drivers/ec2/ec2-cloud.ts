/** The EC2 driver: the contract over one region's API, AWS's own or a compatible one. */
import { EBSClient } from "@aws-sdk/client-ebs";
import { CreateTagsCommand, DeleteTagsCommand } from "@aws-sdk/client-ec2";
import type { Cloud, CloudFacts, CreateRequest, ListFilter, Observed } from "#cloud/contract.ts";
import { scopeTag } from "#cloud/contract.ts";
import { onceThere } from "#cloud/once-there.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { ResourceKind, Tags } from "#model/resource.ts";
import { resourceKinds } from "#model/resource.ts";
import { tagsToEc2 } from "#wire/ec2/ec2-tags.ts";
import { ec2AddressAssociations, ec2Addresses } from "./ec2-addresses.ts";
import { ec2Catalogue, ec2Zones } from "./ec2-catalogue.ts";
import type { Ec2Options } from "./ec2-connection.ts";
import { clientOptions, Ec2Connection, ec2Concurrency, filters } from "./ec2-connection.ts";
import { ec2Groups } from "./ec2-groups.ts";
import { ec2KeyPairs } from "./ec2-key-pairs.ts";
import type { Ec2Kind } from "./ec2-kind.ts";
import { firstOf, missing } from "./ec2-kind.ts";
import { ec2Networks } from "./ec2-networks.ts";
import { ec2SecurityRules } from "./ec2-security-rules.ts";
import { ec2Servers } from "./ec2-servers.ts";
import { ec2Snapshots } from "./ec2-snapshots.ts";
import { ec2Subnets } from "./ec2-subnets.ts";
import { ec2VolumeAttachments, ec2Volumes } from "./ec2-volumes.ts";
import { oneAtATime } from "./one-at-a-time.ts";

/** EC2 takes 50; three are ours. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html */
const maxTags = 47;

const facts: CloudFacts = {
  driver: "ec2",
  kinds: Object.fromEntries(resourceKinds.map((kind) => [kind, true])) as Record<ResourceKind, boolean>,
  unsupportedFields: { volumeAttachment: ["tags"], addressAssociation: ["tags"] },
  publicAddressOnCreate: true,
  networkNeedsCidr: true,
  userDataMutable: true,
  concurrency: ec2Concurrency,
  // EC2 has buckets per action, refilled at 2 to 100 calls a second: there is no one figure.
  callsPerSecond: null,
  maxTagsPerResource: maxTags,
  maxUserDataBytes: 16_384,
};

/** Values of one filter that EC2 takes. */
const maxFilterValues = 200;

export interface Ec2CloudOptions extends Ec2Options {
  /** Images beside the account's own that the catalogue shall show, e.g. those that servers use. */
  readonly imageIds?: readonly string[];
}

type Kinds = { readonly [K in ResourceKind]: Ec2Kind<K> };

function allKinds(ec2: Ec2Connection): Kinds {
  let zone: string | undefined;
  const anyZone = async (signal: AbortSignal): Promise<string | undefined> => {
    zone ??= (await ec2Zones(ec2, signal))[0];
    return zone;
  };
  return {
    network: ec2Networks(ec2),
    subnet: ec2Subnets(ec2),
    securityGroup: ec2Groups(ec2),
    securityGroupRule: ec2SecurityRules(ec2),
    keyPair: ec2KeyPairs(ec2),
    volume: ec2Volumes(ec2, anyZone),
    address: ec2Addresses(ec2),
    server: ec2Servers(ec2),
    volumeAttachment: ec2VolumeAttachments(ec2),
    addressAssociation: ec2AddressAssociations(ec2),
  };
}

async function* listing<K extends ResourceKind>(
  kind: Ec2Kind<K>,
  { scope, tags, ids }: ListFilter,
  signal: AbortSignal,
): AsyncIterable<readonly Observed<K>[]> {
  const byTag = Object.entries(tags ?? {}).map(([key, value]) => [`tag:${key}`, value]);
  const select = filters({ ...Object.fromEntries(byTag), [`tag:${scopeTag}`]: scope });
  if (ids === undefined) {
    yield* kind.pages(select, undefined, signal);
    return;
  }
  for (let from = 0; from < ids.length; from += maxFilterValues) {
    yield* kind.pages(select, ids.slice(from, from + maxFilterValues), signal);
  }
}

export function openEc2Cloud(options: Ec2CloudOptions): Cloud {
  const ec2 = new Ec2Connection(options);
  const kinds = allKinds(ec2);
  let ebs: EBSClient | undefined;
  const serially = oneAtATime();
  const partOf = <K extends ResourceKind>(kind: K): Ec2Kind<K> => kinds[kind];

  const look = <K extends ResourceKind>(kind: K, id: ResourceId, signal: AbortSignal) =>
    firstOf(partOf(kind).pages([], [id], signal));

  /** Read after write: EC2's listings lag behind, and the caller counts on seeing what it made. */
  async function create<K extends ResourceKind>(
    request: CreateRequest<K>,
    signal: AbortSignal,
  ): Promise<Observed<K>> {
    const made = await partOf(request.kind).create(request, signal);
    const deadline = ec2.clock.monotonicMs() + ec2.consistencyMs;
    await onceThere(() =>
      ec2.until(signal, async () => {
        const seen = await look(request.kind, made.resource.id, signal);
        return seen !== undefined || ec2.clock.monotonicMs() > deadline ? true : undefined;
      }),
    );
    return made;
  }

  async function setTags(
    kind: ResourceKind,
    id: ResourceId,
    set: Tags,
    remove: readonly string[],
    signal: AbortSignal,
  ): Promise<void> {
    const target = await partOf(kind).tagTarget(id, signal);
    if (target === undefined) {
      if (kind === "keyPair" || kind === "securityGroupRule") throw missing(kind, id);
      throw new OperationalError("cloud.unsupported", `EC2 has no tags on a ${kind}`);
    }
    const Resources = [target];
    if (Object.keys(set).length > 0) {
      await ec2.change("CreateTags", signal, (client, call) =>
        client.send(new CreateTagsCommand({ Resources, Tags: tagsToEc2(set) }), call),
      );
    }
    if (remove.length > 0) {
      const Tags = remove.map((Key) => ({ Key }));
      await ec2.change("DeleteTags", signal, (client, call) =>
        client.send(new DeleteTagsCommand({ Resources, Tags }), call),
      );
    }
  }

  return {
    facts,
    identify: async (signal) => {
      await ec2Zones(ec2, signal);
      const account = `access key ${options.credentials.accessKeyId} in ${ec2.region}`;
      return { account, endpoint: ec2.endpoint };
    },
    catalogue: (signal) => ec2Catalogue(ec2, options.imageIds ?? [], signal),
    // Two creates with one token at once: the second looks for what the first one made.
    create: (request, signal) =>
      serially(request.token, signal, (first) =>
        create({ ...request, mayExist: request.mayExist || !first }, signal),
      ),
    get: (kind, id, signal) => look(kind, id, signal),
    list: (kind, filter, signal) => listing(partOf(kind), filter, signal),
    update: (kind, id, set, signal) => partOf(kind).update(id, set, signal),
    setTags,
    delete: (kind, id, signal) => partOf(kind).delete(id, signal),
    snapshots: ec2Snapshots(ec2, () => (ebs ??= new EBSClient(clientOptions(options)))),
    close: async () => {
      ebs?.destroy();
      ec2.close();
    },
  };
}
