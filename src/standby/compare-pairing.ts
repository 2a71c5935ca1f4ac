import type { CloudFacts } from "#cloud/contract.ts";
import type { Resource, ResourceKind, Tags } from "#model/resource.ts";
import type { Content, Pairing } from "./pairings.ts";
import { sameContent } from "./pairings.ts";

/**
 * How each field that can differ is brought into line. `update`: whenever the target should have another value.
 * `with_source`: only when it changed on the active side, since its translation may come out differently later.
 * `replace`: as `with_source`, but no cloud changes it in place. Fields that stand nowhere are fixed at creation on both sides.
 */
const fieldRules: Readonly<
  Record<ResourceKind, Readonly<Record<string, "update" | "with_source" | "replace">>>
> = {
  network: { internet: "update" },
  subnet: { publicAddresses: "update" },
  securityGroup: { name: "with_source", description: "with_source" },
  securityGroupRule: { description: "update" },
  keyPair: { publicKey: "replace" },
  volume: { sizeGiB: "update", iops: "update" },
  address: {},
  server: { type: "update", groupIds: "update", userData: "update", power: "update", imageId: "replace" },
  volumeAttachment: { deleteOnTermination: "update", device: "replace" },
  addressAssociation: { addressId: "replace", serverId: "replace" },
};

export interface Difference {
  readonly replace: boolean;
  readonly fields: readonly string[];
  readonly setTags: Tags;
  readonly removeTags: readonly string[];
}

function fieldOf(spec: Resource["spec"], field: string): unknown {
  const value = (spec as unknown as Readonly<Record<string, unknown>>)[field];
  // Their order means nothing.
  return field === "groupIds" && Array.isArray(value) ? value.map(String).toSorted() : value;
}

/** What has to change on the standby. `wanted` is the translation with the standby's own ids. */
export function comparePairing(
  pairing: Pairing & { readonly counterpart: Content },
  source: Content,
  wanted: Content,
  facts: CloudFacts,
): Difference {
  const fields: string[] = [];
  let replace = false;
  for (const [field, rule] of Object.entries(fieldRules[pairing.kind])) {
    const [want, have] = [fieldOf(wanted.spec, field), fieldOf(pairing.counterpart.spec, field)];
    if (sameContent(want, have)) continue;
    const changedAtSource = !sameContent(fieldOf(source.spec, field), fieldOf(pairing.applied.spec, field));
    if ((rule !== "update" || pairing.original) && !changedAtSource) continue;
    // No cloud makes a volume smaller; the larger one does.
    if (field === "sizeGiB" && Number(want) < Number(have)) continue;
    if (rule === "replace" || (field === "userData" && !facts.userDataMutable)) replace = true;
    else fields.push(field);
  }
  const tagsCount = !pairing.original || !sameContent(source.tags, pairing.applied.tags);
  return { replace, fields, ...tagDifference(pairing.counterpart.tags, tagsCount ? wanted.tags : undefined) };
}

function tagDifference(
  have: Tags,
  want: Tags | undefined,
): { readonly setTags: Tags; readonly removeTags: readonly string[] } {
  if (want === undefined) return { setTags: {}, removeTags: [] };
  const setTags = Object.fromEntries(Object.entries(want).filter(([name, value]) => have[name] !== value));
  const removeTags = Object.keys(have).filter((name) => !Object.hasOwn(want, name));
  return { setTags, removeTags };
}
