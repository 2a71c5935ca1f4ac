// The peer: every command of the journal repeated in the other cloud, one after the other, as a plain replay does it.
// It is really carried out, on a clock that jumps over the waiting.
import { createMemoryCloud } from "#drivers/memory/memory-cloud.ts";
import { memoryCatalogue } from "#drivers/memory/memory-catalogue.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { Change } from "#model/change.ts";
import { resourceKey } from "#model/environment-state.ts";
import type { Resource } from "#model/resource.ts";
import { mapReferences } from "#standby/map-references.ts";
import { createTranslator, noMappings } from "#standby/translate.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { shopCatalogue } from "#testing/shop-environment.ts";
import { createVirtualClock } from "#testing/virtual-clock.ts";
import type { History } from "./command-history.ts";

export async function drainOneByOne(
  history: History,
  latencyMs: number,
  callsPerSecond: number,
): Promise<number> {
  const clock = createVirtualClock();
  const cloud = createMemoryCloud({ clock, random: createSeededRandom(5), latencyMs, callsPerSecond });
  const translation = {
    facts: cloud.facts,
    source: shopCatalogue,
    target: memoryCatalogue,
    mappings: noMappings,
    sizing: "fit" as const,
    nameSuffix: "",
  };
  const translate = createTranslator(translation, history.created);
  const { signal } = new AbortController();
  const ids = new Map<string, ResourceId>();
  const idOf = (kind: Resource["kind"], id: string): ResourceId => {
    const found = ids.get(resourceKey(kind, id));
    if (found === undefined) throw new Error(`${kind} ${id} was not replayed`);
    return found;
  };
  const current = new Map<string, Resource>();
  const replay = async (change: Change, token: string): Promise<void> => {
    const key = resourceKey(change.kind, change.id);
    if (change.type === "delete") return cloud.delete(change.kind, idOf(change.kind, change.id), signal);
    if (change.type === "tag") {
      return cloud.setTags(change.kind, idOf(change.kind, change.id), change.set, change.remove, signal);
    }
    const before = current.get(key);
    const resource = (
      change.type === "create" ? change : { ...before, spec: { ...before?.spec, ...change.set } }
    ) as Resource;
    current.set(key, resource);
    const translated = translate(resource);
    if ("gap" in translated) throw new Error(translated.gap.message);
    const spec = mapReferences(change.kind, translated.spec, idOf);
    if (change.type === "update") {
      const set = Object.fromEntries(Object.entries(spec).filter(([field]) => field in change.set));
      return cloud.update(change.kind, idOf(change.kind, change.id), set, signal);
    }
    const { kind } = change;
    const { tags } = translated;
    const made = await cloud.create({ kind, spec, tags, token, scope: "replay", mayExist: false }, signal);
    ids.set(key, made.resource.id);
  };
  const all = async (): Promise<void> => {
    for (const [at, command] of history.commands.entries()) {
      for (const change of command) await replay(change, `replay-${at}`);
    }
  };
  await clock.drive(all());
  return clock.monotonicMs() / 1000;
}
