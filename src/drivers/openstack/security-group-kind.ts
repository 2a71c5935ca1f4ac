/**
 * Security groups. Neutron gives every new group two rules that let everything out; the model's group has
 * the rules that the model has, so they are taken away again before the group counts as made (it is, once it has its
 * token's tag).
 */
import { onceThere } from "#cloud/once-there.ts";
import { securityGroupResponseSchema, securityGroupSchema } from "#wire/openstack/neutron.ts";
import type { NeutronSecurityGroup } from "#wire/openstack/neutron.ts";
import { securityGroupFromBody } from "#wire/openstack/openstack-resources.ts";
import {
  markDescription,
  markerFor,
  neutronTokenTagFor,
  readDescription,
  splitMarker,
} from "#wire/openstack/openstack-tags.ts";
import type { Calls } from "./calls.ts";
import type { KindDriver } from "./kind-driver.ts";
import { onlyUpdates } from "./kind-driver.ts";
import { byId } from "./network-kind.ts";
import { addNeutronTags, changeNeutronTags, foundByDescription, putNeutronTags } from "./neutron-tags.ts";

export function listGroups(
  query: Readonly<Record<string, string | readonly string[]>>,
  calls: Calls,
): AsyncGenerator<NeutronSecurityGroup[], void, void> {
  return calls.pages("network", "/security-groups", "security_groups", securityGroupSchema, {
    ...byId,
    query,
  });
}

async function first(
  query: Readonly<Record<string, string>>,
  calls: Calls,
): Promise<NeutronSecurityGroup | undefined> {
  for await (const page of listGroups(query, calls)) return page[0];
  return undefined;
}

export function securityGroupKind(): KindDriver<"securityGroup"> {
  return {
    async create({ spec, tags, token, scope, mayExist }, calls) {
      const marker = markerFor(scope, token);
      const tokenTag = neutronTokenTagFor(marker);
      const marked = markDescription(spec.description, marker);
      const known = mayExist
        ? ((await first({ tags: tokenTag }, calls)) ??
          (await first({ description: marked.description }, calls)))
        : undefined;
      if (known?.tags?.includes(tokenTag)) return securityGroupFromBody(known);
      const body = { security_group: { name: spec.name, description: marked.description } };
      const group =
        known ??
        (await calls.change("POST", "network", "/security-groups", body, securityGroupResponseSchema))
          .security_group;
      await onceThere(async () => {
        for (const rule of group.security_group_rules) {
          await calls.remove("network", `/security-group-rules/${rule.id}`);
        }
        const extra = [tokenTag, ...(marked.tail === undefined ? [] : [marked.tail])];
        await addNeutronTags(`/security-groups/${group.id}`, tags, { nameIsTag: true, extra }, calls);
      });
      const mapped = securityGroupFromBody(group);
      const made = { name: spec.name, description: spec.description };
      return { ...mapped, resource: { ...mapped.resource, spec: made, tags } };
    },

    async get(id, calls) {
      const answer = await calls.find("network", `/security-groups/${id}`, securityGroupResponseSchema);
      return answer === undefined ? undefined : securityGroupFromBody(answer.security_group);
    },

    async *list(filter, calls) {
      const project_id = await calls.projectId();
      const query = { project_id, ...(filter.ids === undefined ? {} : { id: filter.ids }) };
      for await (const page of listGroups(query, calls)) {
        yield page.map((group) => foundByDescription(securityGroupFromBody(group), group.description));
      }
    },

    async update(id, set, calls) {
      onlyUpdates("securityGroup", set, ["name", "description", "networkId"]);
      const path = `/security-groups/${id}`;
      const changes: { name?: string; description?: string } = {};
      if (set.name !== undefined) changes.name = set.name;
      if (set.description !== undefined) {
        const { security_group: group } = await calls.get("network", path, securityGroupResponseSchema);
        const { marker } = splitMarker(group.description ?? "");
        if (readDescription(group.description, group.tags).text === set.description) {
          // As it is already.
        } else if (marker === undefined) {
          changes.description = set.description;
        } else {
          const marked = markDescription(set.description, marker);
          const kept = (group.tags ?? []).filter((tag) => !tag.startsWith("understudy:d="));
          await putNeutronTags(path, [...kept, ...(marked.tail === undefined ? [] : [marked.tail])], calls);
          changes.description = marked.description;
        }
      }
      if (Object.keys(changes).length > 0) {
        await calls.act("PUT", "network", path, { security_group: changes });
      }
    },

    setTags: (id, set, remove, calls) => changeNeutronTags(`/security-groups/${id}`, set, remove, calls),

    async delete(id, calls) {
      await calls.remove("network", `/security-groups/${id}`);
    },
  };
}
