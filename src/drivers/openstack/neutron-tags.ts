/** Tags of Neutron's objects. Neutron replaces the whole list, so that a change is read, changed and written. */
import type { ResourceKind, Tags } from "#model/resource.ts";
import { tagsBodySchema } from "#wire/openstack/neutron.ts";
import {
  neutronTag,
  neutronTagsFrom,
  readDescription,
  tagsFromNeutron,
} from "#wire/openstack/openstack-tags.ts";
import type { Calls } from "./calls.ts";
import type { Found } from "./kind-driver.ts";
import type { MappedResource } from "#wire/openstack/openstack-resources.ts";

/** `path`: of the object, e.g. `/networks/ID`. Keeps what is no tag of the model (token, tail of a description). */
export async function changeNeutronTags(
  path: string,
  set: Tags,
  remove: readonly string[],
  calls: Calls,
): Promise<void> {
  const { tags: before } = await calls.get("network", `${path}/tags`, tagsBodySchema);
  const gone = new Set([...remove, ...Object.keys(set)]);
  const kept = before.filter((text) => {
    const [key] = Object.keys(tagsFromNeutron([text]));
    return key === undefined || !gone.has(key);
  });
  const after = [...kept, ...Object.entries(set).map(([key, value]) => neutronTag(key, value))];
  await putNeutronTags(path, after, calls);
}

export async function putNeutronTags(path: string, tags: readonly string[], calls: Calls): Promise<void> {
  await calls.act("PUT", "network", `${path}/tags`, { tags: [...new Set(tags)] });
}

/** The tags that follow a create; nothing is sent for none. */
export async function addNeutronTags(
  path: string,
  tags: Tags,
  options: { readonly nameIsTag: boolean; readonly extra?: readonly string[] },
  calls: Calls,
): Promise<void> {
  const texts = [...neutronTagsFrom(tags, options.nameIsTag), ...(options.extra ?? [])];
  if (texts.length > 0) await putNeutronTags(path, texts, calls);
}

/** For kinds whose `Name` is the name field; `noun` is the body's key, e.g. `network`. */
export async function changeNamedTags(
  noun: string,
  path: string,
  set: Tags,
  remove: readonly string[],
  calls: Calls,
): Promise<void> {
  const { Name: name, ...others } = set;
  const renamed = name ?? (remove.includes("Name") ? "" : undefined);
  if (renamed !== undefined) await calls.act("PUT", "network", path, { [noun]: { name: renamed } });
  const removed = remove.filter((key) => key !== "Name");
  if (Object.keys(others).length > 0 || removed.length > 0) {
    await changeNeutronTags(path, others, removed, calls);
  }
}

export function foundByDescription<K extends ResourceKind>(
  mapped: MappedResource<K>,
  description: string | null | undefined,
): Found<K> {
  return { mapped, scopeDigest: readDescription(description).marker?.scopeDigest };
}
