import type { Tag, TagSpecification } from "@aws-sdk/client-ec2";
import type { Tags } from "#model/resource.ts";

/** `aws:` tags are the cloud's own and cannot be set by anyone. */
export function tagsFromEc2(tags: readonly Tag[] | undefined): Tags {
  return Object.fromEntries(
    (tags ?? [])
      .filter(({ Key }) => Key !== undefined && !Key.startsWith("aws:"))
      .map(({ Key, Value }) => [Key, Value ?? ""]),
  );
}

export function tagsToEc2(tags: Tags): Tag[] {
  return Object.entries(tags).map(([Key, Value]) => ({ Key, Value }));
}

/** The tags that a create command asked for; `type` is EC2's name, e.g. `security-group`. */
export function tagsAskedFor(specifications: readonly TagSpecification[] | undefined, type: string): Tags {
  return tagsFromEc2(
    (specifications ?? [])
      .filter(({ ResourceType }) => ResourceType === type)
      .flatMap(({ Tags }) => Tags ?? []),
  );
}

/** The cloud's answer counts; where it does not tell the tags, what was asked for. */
export function tagsOfCreated(
  answered: readonly Tag[] | undefined,
  specifications: readonly TagSpecification[] | undefined,
  type: string,
): Tags {
  return answered === undefined || answered.length === 0
    ? tagsAskedFor(specifications, type)
    : tagsFromEc2(answered);
}
