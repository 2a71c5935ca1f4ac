// A long life of a shop, as single commands: what there is in the end, what came and went, and many small changes.
import { resourceId } from "#kernel/ids.ts";
import type { Random } from "#kernel/random.ts";
import type { Change } from "#model/change.ts";
import type { Resource } from "#model/resource.ts";
import { shopEnvironment } from "#testing/shop-environment.ts";

export interface History {
  readonly commands: readonly (readonly Change[])[];
  /** Everything that ever was, as it was created. */
  readonly created: readonly Resource[];
}

export function commandHistory(servers: number, commands: number, random: Random): History {
  const shop = shopEnvironment({ servers, volumeEvery: 5 });
  const all: Change[][] = shop.map((resource) => [{ type: "create", ...resource }]);
  const created: Resource[] = [...shop];
  const model = shop.find((one) => one.kind === "server");
  if (model === undefined) throw new Error("a shop has servers");
  const pick = (): ReturnType<typeof resourceId> =>
    resourceId(`i-${Math.floor(random.fraction() * servers)}`);
  for (let at = 0; all.length < commands; at += 1) {
    const kind = at % 8;
    if (kind === 0 && all.length + 2 <= commands) {
      const short = { ...model, id: resourceId(`i-short-${at}`) };
      created.push(short);
      all.push([{ type: "create", ...short }], [{ type: "delete", kind: "server", id: short.id }]);
    } else if (kind === 1) {
      const type = random.fraction() < 0.5 ? "t3.medium" : "m5.xlarge";
      all.push([{ type: "update", kind: "server", id: pick(), set: { type } }]);
    } else {
      all.push([{ type: "tag", kind: "server", id: pick(), set: { deploy: `v${at}` }, remove: [] }]);
    }
  }
  return { commands: all, created };
}
