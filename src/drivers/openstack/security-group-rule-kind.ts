/** Rules: their id is their content, so that a create that is repeated finds the first one, and Neutron refuses a second. */
import { isOperational } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { securityGroupResponseSchema, securityGroupRuleResponseSchema } from "#wire/openstack/neutron.ts";
import type { NeutronRule } from "#wire/openstack/neutron.ts";
import type { MappedResource } from "#wire/openstack/openstack-resources.ts";
import { groupOfRuleId, normalRuleId, ruleFromBody, ruleToBody } from "#wire/openstack/openstack-rules.ts";
import { securityGroupRuleId } from "#model/resource.ts";
import { readDescription } from "#wire/openstack/openstack-tags.ts";
import type { Calls } from "./calls.ts";
import type { Found, KindDriver } from "./kind-driver.ts";
import { noTags, onlyUpdates } from "./kind-driver.ts";
import { listGroups } from "./security-group-kind.ts";

type Mapped = MappedResource<"securityGroupRule">;

/** The rule as Neutron holds it, with Neutron's own id. */
async function findRule(
  id: string,
  calls: Calls,
): Promise<{ readonly body: NeutronRule; readonly mapped: Mapped } | undefined> {
  const groupId = groupOfRuleId(id);
  if (groupId === undefined) {
    const answer = await calls.find(
      "network",
      `/security-group-rules/${id}`,
      securityGroupRuleResponseSchema,
    );
    const body = answer?.security_group_rule;
    const mapped = body === undefined ? undefined : ruleFromBody(body);
    return body === undefined || mapped === undefined ? undefined : { body, mapped };
  }
  const answer = await calls.find("network", `/security-groups/${groupId}`, securityGroupResponseSchema);
  const wanted = normalRuleId(id);
  for (const body of answer?.security_group.security_group_rules ?? []) {
    const mapped = ruleFromBody(body);
    if (mapped !== undefined && normalRuleId(mapped.resource.id) === wanted) return { body, mapped };
  }
  return undefined;
}

/** Keeps the id by which the caller knows the rule, where Neutron writes the same rule otherwise. */
function named(mapped: Mapped, id: ResourceId): Mapped {
  return { ...mapped, resource: { ...mapped.resource, id } };
}

export function securityGroupRuleKind(): KindDriver<"securityGroupRule"> {
  return {
    async create({ spec, mayExist }, calls) {
      const id = securityGroupRuleId(spec);
      const known = mayExist ? await findRule(id, calls) : undefined;
      if (known !== undefined) return named(known.mapped, id);
      try {
        const body = ruleToBody(spec);
        await calls.act("POST", "network", "/security-group-rules", body);
      } catch (error) {
        if (!isOperational(error, "cloud.conflict") || error.remoteCode !== "SecurityGroupRuleExists")
          throw error;
        const found = await findRule(id, calls);
        if (found !== undefined) return named(found.mapped, id);
        // Neutron counts the same rule under another writing of its prefix; what is asked for is in force.
      }
      return {
        resource: { kind: "securityGroupRule", id, spec, tags: {} },
        status: "ready",
        addresses: { private: [], public: [] },
      };
    },

    async get(id, calls) {
      const found = await findRule(id, calls);
      return found === undefined ? undefined : named(found.mapped, id);
    },

    /** A rule is of the scope that its group is of. */
    async *list(filter, calls) {
      const project_id = await calls.projectId();
      const wanted = filter.ids?.map((id) => [normalRuleId(id), id] as const);
      const ids = wanted === undefined ? undefined : new Map(wanted);
      for await (const page of listGroups({ project_id }, calls)) {
        const found: Found<"securityGroupRule">[] = [];
        for (const group of page) {
          const scopeDigest = readDescription(group.description).marker?.scopeDigest;
          for (const body of group.security_group_rules) {
            const mapped = ruleFromBody(body);
            if (mapped === undefined) continue;
            const known = ids?.get(normalRuleId(mapped.resource.id));
            found.push({ mapped: known === undefined ? mapped : named(mapped, known), scopeDigest });
          }
        }
        yield found;
      }
    },

    async update(id, set, calls) {
      const found = await findRule(id, calls);
      const same = found !== undefined && set.description === (found.mapped.resource.spec.description ?? "");
      if (!same) onlyUpdates("securityGroupRule", set, []);
    },

    async setTags() {
      throw noTags("securityGroupRule");
    },

    async delete(id, calls) {
      const found = await findRule(id, calls);
      if (found !== undefined) await calls.remove("network", `/security-group-rules/${found.body.id}`);
    },
  };
}
