/** What a forwarder must know after a restart: the last target of each route. */
import { OperationalError } from "#kernel/errors.ts";
import { readFileIfAny, replaceFile } from "#kernel/durable-file.ts";
import { checkTarget, type RouteTarget } from "#traffic/traffic-switch.ts";

export interface ForwarderState {
  load(): Promise<ReadonlyMap<string, RouteTarget>>;
  /** Durable when it resolves. All routes at once; the forwarder never calls it twice at the same time. */
  save(targets: ReadonlyMap<string, RouteTarget>): Promise<void>;
}

/** For tests, and for an engine that applies its own targets at every start. */
export function memoryForwarderState(): ForwarderState {
  let kept: ReadonlyMap<string, RouteTarget> = new Map();
  return {
    load: () => Promise.resolve(kept),
    save: (targets) => {
      kept = new Map(targets);
      return Promise.resolve();
    },
  };
}

function decodeState(text: string): Map<string, RouteTarget> {
  const parsed = JSON.parse(text) as { version: number; routes: [string, RouteTarget][] };
  if (parsed.version !== 1) throw new Error(`version ${parsed.version} is not 1`);
  const targets = new Map<string, RouteTarget>();
  for (const [name, target] of parsed.routes) {
    checkTarget(target);
    targets.set(name, target);
  }
  return targets;
}

/** One JSON file; one process a file. A file that cannot be read as such is an error, never an empty state. */
export function fileForwarderState(path: string): ForwarderState {
  return {
    async load() {
      const text = await readFileIfAny(path);
      if (text === null) return new Map();
      try {
        return decodeState(text);
      } catch (cause) {
        throw new OperationalError(
          "store.failing",
          `${path} is not a forwarder's state: restore it, or remove it and apply the targets again`,
          { retry: "never", detail: String(cause), cause },
        );
      }
    },
    save: (targets) => replaceFile(path, `${JSON.stringify({ version: 1, routes: [...targets] })}\n`),
  };
}
