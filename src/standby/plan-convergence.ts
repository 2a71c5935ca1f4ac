/**
 * The one mechanism behind growing the reserve, takeover, failback, scaling down, swap and drill: compare what a site was
 * asked for with what is wanted of it, and say what is to be done in which order. Pure.
 */
import type { ResourceId } from "#kernel/ids.ts";
import type { Gap } from "#model/gap.ts";
import { resourceKey } from "#model/environment-state.ts";
import type { Reference, Resource, ResourceKind } from "#model/resource.ts";
import { referencesOf, resourceKinds } from "#model/resource.ts";
import { comparePairing } from "./compare-pairing.ts";
import type { ActionType, ConvergenceAction, ConvergencePlan, Wanted } from "./convergence-plan.ts";
import { mapReferences } from "./map-references.ts";
import { orderActions } from "./order-actions.ts";
import type { Content, Pairing, Pairings } from "./pairings.ts";
import { pairingKey } from "./pairings.ts";
import type { Translation, Translator } from "./translate.ts";
import { createTranslator, expandForTarget } from "./translate.ts";

export interface ConvergenceInput {
  /** What the target site should hold, in the active side's terms, and with everything it refers to. */
  readonly desired: Iterable<Resource>;
  readonly pairings: Pairings;
  readonly translation: Translation;
  /** Keys of what stands and is left as it is, although it is not among what is desired. */
  readonly keep?: ReadonlySet<string>;
}

export function planConvergence(input: ConvergenceInput): ConvergencePlan {
  const desired = expandForTarget(input.desired, input.translation.facts);
  const gaps: Gap[] = [];
  const translator = createTranslator(input.translation, desired);
  const wanted = translateAll(translator, desired, gaps);
  const draft = new PlanDraft(
    input,
    translator,
    wanted,
    new Set([...desired.map(({ kind, id }) => resourceKey(kind, id)), ...(input.keep ?? [])]),
  );
  for (const one of wanted.values()) draft.converge(one);
  for (const pairing of input.pairings.values()) draft.remove(pairing);
  const { calls, depth } = orderActions(draft.actions, input.pairings);
  return { actions: draft.actions, gaps, calls, depth };
}

/** In the order of kinds, so that what a resource refers to was decided before it. */
function translateAll(
  translator: Translator,
  desired: readonly Resource[],
  gaps: Gap[],
): Map<string, Wanted> {
  const rank = new Map<ResourceKind, number>(resourceKinds.map((kind, index) => [kind, index]));
  const sorted = desired.toSorted((a, b) => (rank.get(a.kind) ?? 0) - (rank.get(b.kind) ?? 0));
  const known = new Set(desired.map(({ kind, id }) => resourceKey(kind, id)));
  const wanted = new Map<string, Wanted>();
  for (const resource of sorted) {
    const translated = translator(resource);
    if ("gap" in translated) {
      gaps.push(translated.gap);
      continue;
    }
    gaps.push(...translated.gaps);
    const { spec, tags } = translated;
    const target = withKnownReferences(resource, { spec, tags }, wanted, known, gaps);
    if (target !== undefined) wanted.set(resourceKey(resource.kind, resource.id), { resource, target });
  }
  return wanted;
}

/** A server does without a group or a key that has no counterpart; whatever else misses an end can't be. */
function withKnownReferences(
  resource: Resource,
  target: Content,
  wanted: ReadonlyMap<string, Wanted>,
  known: ReadonlySet<string>,
  gaps: Gap[],
): Content | undefined {
  const references = referencesOf({ ...resource, spec: target.spec } as Resource);
  const missing = references.filter(({ kind, id }) => !wanted.has(resourceKey(kind, id)));
  if (missing.length === 0) return target;
  const dispensable = (end: Reference): boolean =>
    resource.kind === "server" && (end.kind === "securityGroup" || end.kind === "keyPair");
  const fatal = missing.find((end) => !dispensable(end));
  const named = fatal ?? missing[0];
  // What has a gap of its own is not told twice.
  if (named !== undefined && !known.has(resourceKey(named.kind, named.id))) {
    gaps.push({
      code: "reference.missing",
      severity: fatal === undefined ? "degraded" : "lost",
      resource: { kind: resource.kind, id: resource.id },
      message: `${resource.kind} ${resource.id} refers to ${named.kind} ${named.id}, which is not known here: ${fatal === undefined ? "it is made without it" : "it cannot be made"}`,
    });
  }
  if (fatal !== undefined) return undefined;
  const absent = new Set(missing.map(({ kind, id }) => resourceKey(kind, id)));
  return { ...target, spec: withoutReferences(target.spec, absent) };
}

function withoutReferences(spec: Resource["spec"], absent: ReadonlySet<string>): Resource["spec"] {
  if (!("groupIds" in spec)) return spec;
  const { keyName, ...rest } = spec;
  return {
    ...rest,
    groupIds: rest.groupIds.filter((id) => !absent.has(resourceKey("securityGroup", id))),
    ...(keyName === undefined || absent.has(resourceKey("keyPair", keyName)) ? {} : { keyName }),
  };
}

/** Kinds whose creation is only accepted at first. */
function needsConfirmation(pairing: Pairing): boolean {
  return pairing.kind === "server" && !pairing.confirmed;
}

class PlanDraft {
  readonly actions: ConvergenceAction[] = [];
  readonly #input: ConvergenceInput;
  readonly #translator: Translator;
  readonly #wanted: ReadonlyMap<string, Wanted>;
  /** Keys of what is not removed. */
  readonly #stays: ReadonlySet<string>;
  /** Keys of what is deleted and made again: links to it go with it and follow. */
  readonly #replaced = new Set<string>();

  constructor(
    input: ConvergenceInput,
    translator: Translator,
    wanted: ReadonlyMap<string, Wanted>,
    stays: ReadonlySet<string>,
  ) {
    this.#input = input;
    this.#translator = translator;
    this.#wanted = wanted;
    this.#stays = stays;
  }

  converge({ resource, target }: Wanted): void {
    const pairing = this.#input.pairings.get(resourceKey(resource.kind, resource.id));
    const source: Content = { spec: resource.spec, tags: resource.tags };
    if (pairing === undefined) return this.#create(resource, source, target, null);
    if (pairing.state === "deleting" || pairing.standbyId === null || pairing.counterpart === null) {
      return this.#finish(pairing, source, target);
    }
    const counterpart = pairing.counterpart;
    const resolved: Content = { spec: this.#resolve(resource.kind, target.spec), tags: target.tags };
    const difference = comparePairing(
      { ...pairing, counterpart },
      source,
      resolved,
      this.#input.translation.facts,
    );
    if (difference.replace || this.#endsAreReplaced(resource)) {
      this.#replaced.add(resourceKey(resource.kind, resource.id));
      this.#delete(pairing);
      return this.#create(resource, source, target, null);
    }
    if (needsConfirmation(pairing)) this.#add("confirm", pairing, { source, target });
    this.#change(pairing, source, target, difference);
  }

  /** What has a pairing and is wanted no more; what is wanted but has no translation just now stays as it is. */
  remove(pairing: Pairing): void {
    if (this.#stays.has(pairingKey(pairing))) return;
    if (pairing.state === "creating") {
      // It may exist: the token brings back its id, so that it can be deleted.
      const recorded = this.#recorded(pairing);
      if (recorded !== undefined) this.#create(pairing, pairing.applied, recorded, pairing.token);
    }
    this.#delete(pairing);
  }

  /** An earlier run was interrupted between the target's call and its record. */
  #finish(pairing: Pairing, source: Content, target: Content): void {
    if (pairing.state === "deleting") {
      this.#replaced.add(pairingKey(pairing));
      this.#delete(pairing);
      return this.#create(pairing, source, target, null);
    }
    // A token stands for what it was sent with; what has changed since follows as an update.
    const recorded = this.#recorded(pairing) ?? target;
    this.#create(pairing, pairing.applied, recorded, pairing.token);
    const counterpart: Content = { ...recorded, spec: this.#resolve(pairing.kind, recorded.spec) };
    const resolved: Content = { ...target, spec: this.#resolve(pairing.kind, target.spec) };
    const facts = this.#input.translation.facts;
    const difference = comparePairing({ ...pairing, counterpart }, source, resolved, facts);
    if (!difference.replace) this.#change(pairing, source, target, difference);
  }

  #endsAreReplaced(resource: Resource): boolean {
    if (resource.kind !== "volumeAttachment" && resource.kind !== "addressAssociation") return false;
    return referencesOf(resource).some(({ kind, id }) => this.#replaced.has(resourceKey(kind, id)));
  }

  #recorded(pairing: Pairing): Content | undefined {
    const resource = { kind: pairing.kind, id: pairing.activeId, ...pairing.applied } as Resource;
    const translated = this.#translator(resource);
    if ("gap" in translated) return undefined;
    const absent = referencesOf({ ...resource, spec: translated.spec } as Resource)
      .map(({ kind, id }) => resourceKey(kind, id))
      .filter((key) => !this.#wanted.has(key) && !this.#input.pairings.has(key));
    return { spec: withoutReferences(translated.spec, new Set(absent)), tags: translated.tags };
  }

  #resolve(kind: ResourceKind, spec: Resource["spec"]): Resource["spec"] {
    return mapReferences(kind, spec, (endKind, id) => {
      const end = this.#input.pairings.get(resourceKey(endKind, id));
      return end?.state === "paired" && end.standbyId !== null
        ? end.standbyId
        : (`to be made: ${id}` as ResourceId);
    });
  }

  #create(
    of: { readonly kind: ResourceKind } & ({ readonly id: ResourceId } | { readonly activeId: ResourceId }),
    source: Content,
    target: Content,
    resume: string | null,
  ): void {
    const activeId = "id" in of ? of.id : of.activeId;
    this.#add("create", { kind: of.kind, activeId }, { source, target, resume });
  }

  #change(
    pairing: Pairing,
    source: Content,
    target: Content,
    difference: ReturnType<typeof comparePairing>,
  ): void {
    const { fields, setTags, removeTags } = difference;
    if (fields.length > 0) this.#add("update", pairing, { source, target, fields });
    if (Object.keys(setTags).length > 0 || removeTags.length > 0) {
      this.#add("retag", pairing, { source, set: setTags, remove: removeTags });
    }
  }

  #delete(pairing: Pairing): void {
    this.#add("delete", pairing, { implied: this.#endsWithAnother(pairing) });
  }

  /**
   * A rule ends with its group and a link with its server, so that no call is needed for them; except where the cloud would
   * take more with it (a volume that is to stay) or refuse (a rule that names another group).
   */
  #endsWithAnother(pairing: Pairing): boolean {
    const { kind, spec } = { kind: pairing.kind, spec: pairing.applied.spec } as Resource;
    const goes = (endKind: ResourceKind, id: string): boolean => {
      const key = resourceKey(endKind, id);
      return !this.#stays.has(key) && this.#input.pairings.get(key)?.state === "paired";
    };
    switch (kind) {
      case "securityGroupRule":
        return (
          goes("securityGroup", spec.groupId) &&
          (!("groupId" in spec.peer) || spec.peer.groupId === spec.groupId)
        );
      case "volumeAttachment":
        return goes("server", spec.serverId) && (!spec.deleteOnTermination || goes("volume", spec.volumeId));
      case "addressAssociation":
        return goes("server", spec.serverId);
      case "network":
      case "subnet":
      case "securityGroup":
      case "keyPair":
      case "volume":
      case "address":
      case "server":
        return false;
    }
  }

  #add(type: ActionType, of: Pick<Pairing, "kind" | "activeId">, fields: object): void {
    this.actions.push({
      index: this.actions.length,
      type,
      key: pairingKey(of),
      kind: of.kind,
      activeId: of.activeId,
      waitsFor: [],
      priority: 0,
      ...fields,
    } as unknown as ConvergenceAction);
  }
}
