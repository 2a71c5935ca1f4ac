/** CreateTags and DeleteTags: an id's prefix tells what it is. */
import type { CreateTagsRequest, DeleteTagsRequest } from "@aws-sdk/client-ec2";
import type { TagChange } from "#model/change.ts";
import type { Gap } from "#model/gap.ts";
import type { ResourceKind, Tags } from "#model/resource.ts";
import type { Ec2Effect, Ec2Translators, KnownResources } from "./ec2-effect.ts";
import { id } from "./ec2-effect.ts";
import { kindOfEc2Id } from "./ec2-ids.ts";
import { tagsFromEc2 } from "./ec2-tags.ts";

function tagEach(
  operation: string,
  ids: readonly string[],
  change: (kind: ResourceKind, resourceId: string) => Pick<TagChange, "set" | "remove">,
): Ec2Effect {
  const changes: TagChange[] = [];
  const others: string[] = [];
  for (const resourceId of ids) {
    const kind = kindOfEc2Id(resourceId);
    if (kind === undefined) others.push(resourceId);
    else changes.push({ type: "tag", kind, id: id(resourceId), ...change(kind, resourceId) });
  }
  const gaps: Gap[] =
    others.length === 0
      ? []
      : [
          {
            code: "operation.untranslated",
            severity: "note",
            operation: `ec2:${operation}`,
            message: `tags of ${others.join(", ")} are not carried over: the standby has no such resource`,
          },
        ];
  return { changes, gaps };
}

/** A value in the request spares tags whose value differs; no tags at all means every tag. */
function removedKeys(input: DeleteTagsRequest, current: Tags | undefined): string[] {
  if (!input.Tags?.length) return Object.keys(current ?? {});
  return input.Tags.filter(
    ({ Key, Value }) => Value === undefined || current === undefined || current[Key ?? ""] === Value,
  ).flatMap(({ Key }) => Key ?? []);
}

function deleteTags(input: DeleteTagsRequest, _output: object, known: KnownResources): Ec2Effect {
  const effect = tagEach("DeleteTags", input.Resources ?? [], (kind, resourceId) => ({
    set: {},
    remove: removedKeys(input, known.get(kind, resourceId)?.tags),
  }));
  return {
    ...effect,
    changes: effect.changes.filter((change) => change.type !== "tag" || change.remove.length),
  };
}

export const tagTranslators = {
  CreateTags: (input: CreateTagsRequest) =>
    tagEach("CreateTags", input.Resources ?? [], () => ({ set: tagsFromEc2(input.Tags), remove: [] })),
  DeleteTags: deleteTags,
} satisfies Ec2Translators;
