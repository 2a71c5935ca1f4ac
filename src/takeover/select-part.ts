/** Which servers and volumes of an environment a run is about, from what a person named. Pure. */
import { OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import { serversOfVolumes } from "#model/recovered-volumes.ts";
import type { ResourceOf } from "#model/resource.ts";

type State = Pick<EnvironmentState, "resources">;

/** As they were named: a server by its id or its name, a volume by its id. Nothing named: the whole environment. */
export interface NamedPart {
  readonly servers?: readonly string[];
  readonly volumes?: readonly string[];
}

/** Where the environment is served. */
export interface Whole {
  readonly environment: string;
  readonly state: State;
  readonly kept: ReadonlySet<ResourceId>;
}

/** The kept volumes that are meant: named, or of a server that is. Errors: `not_found`, also for a server without any. */
export function selectVolumes(
  whole: Whole,
  { servers = [], volumes = [] }: NamedPart,
): readonly ResourceId[] {
  const { state, kept, environment } = whole;
  const selected = new Set<ResourceId>();
  for (const name of volumes) {
    const found = [...kept].find((id) => id === name);
    if (found === undefined) throw unknownVolume(whole, name);
    selected.add(found);
  }
  for (const name of servers) {
    const id = serverNamed(whole, name);
    const own = [...kept].filter((volume) => serversOfVolumes(state, new Set([volume])).has(id));
    if (own.length === 0) {
      throw new OperationalError(
        "not_found",
        `server "${name}" of "${environment}" has no volume whose content is kept: see \`protect\` in understudy.yaml`,
      );
    }
    for (const volume of own) selected.add(volume);
  }
  return servers.length + volumes.length === 0 ? [...kept] : [...selected];
}

/** The servers that are meant: named, or with a volume that is; undefined: all. Errors: `not_found`. */
export function selectServers(
  whole: Whole,
  { servers = [], volumes = [] }: NamedPart,
): readonly ResourceId[] | undefined {
  if (servers.length + volumes.length === 0) return undefined;
  const selected = new Set(servers.map((name) => serverNamed(whole, name)));
  for (const volume of volumes.length === 0 ? [] : selectVolumes(whole, { volumes })) {
    const users = serversOfVolumes(whole.state, new Set([volume]));
    if (users.size === 0) {
      throw new OperationalError(
        "not_found",
        `no server of "${whole.environment}" has volume "${volume}" attached`,
      );
    }
    for (const id of users) selected.add(id);
  }
  return [...selected];
}

function serverNamed({ environment, state }: Whole, name: string): ResourceId {
  const all = [...state.resources()].filter((one): one is ResourceOf<"server"> => one.kind === "server");
  const byId = all.find(({ id }) => id === name);
  if (byId !== undefined) return byId.id;
  const [found, ...others] = all.filter(({ tags }) => tags["Name"] === name);
  if (found === undefined) {
    throw new OperationalError(
      "not_found",
      `"${environment}" has no server "${name}": see "understudy env show ${environment}"`,
    );
  }
  if (others.length > 0) {
    const ids = [found, ...others].map(({ id }) => id).join(", ");
    throw new OperationalError(
      "input.invalid",
      `several servers of "${environment}" are called "${name}": name one of ${ids}`,
    );
  }
  return found.id;
}

function unknownVolume({ environment, kept }: Whole, volume: string): OperationalError {
  const names = kept.size === 0 ? "none" : [...kept].join(", ");
  return new OperationalError(
    "not_found",
    `"${volume}" is no volume of "${environment}" whose content is kept; those are: ${names}`,
  );
}
