/** The groups of a desk, each opened by itself: what keeps one from opening is told to who asks for it, and keeps no other from being served. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "#kernel/clock.ts";
import { makeFolder } from "#kernel/durable-file.ts";
import { publicMessage } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { groupName } from "./export-name.ts";
import type { GroupDesk } from "./group-desk.ts";

export interface OpenGroupsOptions {
  /** Of all groups: a folder each. Made if absent. */
  readonly folder: string;
  readonly open: (group: string, folder: string) => Promise<GroupDesk>;
  readonly clock: Clock;
  readonly log: Log;
}

/** One that could not be opened is tried again when it is asked for, but no sooner than after so long, in milliseconds. */
const retryMs = 5000;

interface Group {
  desk: Promise<GroupDesk>;
  /** Of the monotonic clock; undefined: it is open, or being opened. */
  failedAtMs: number | undefined;
}

export class OpenGroups implements AsyncDisposable {
  readonly #options: OpenGroupsOptions;
  readonly #groups = new Map<string, Group>();

  private constructor(options: OpenGroupsOptions) {
    this.#options = options;
  }

  /** Returns when each has been opened, or has been tried. */
  static async open(options: OpenGroupsOptions): Promise<OpenGroups> {
    const { folder, log } = options;
    await makeFolder(folder);
    const groups = new OpenGroups(options);
    const tried: Promise<unknown>[] = [];
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      // The error is told to whoever asks for the group.
      if (entry.isDirectory() && groupName.test(entry.name))
        tried.push(groups.make(entry.name).catch(() => {}));
      else log.warn({ name: entry.name }, "this is no group's folder: it is left alone");
    }
    await Promise.all(tried);
    return groups;
  }

  /** Undefined: nothing of it was ever taken in. Errors: what keeps it from opening. */
  get(group: string): Promise<GroupDesk | undefined> {
    return this.#groups.has(group) ? this.make(group) : Promise.resolve(undefined);
  }

  /** Also one of which there is nothing yet. */
  make(group: string): Promise<GroupDesk> {
    const { folder, open, clock, log } = this.#options;
    const present = this.#groups.get(group);
    const failedAtMs = present?.failedAtMs;
    const isDue = failedAtMs !== undefined && clock.monotonicMs() - failedAtMs >= retryMs;
    if (present !== undefined && !isDue) return present.desk;
    const opened: Group = { desk: open(group, join(folder, group)), failedAtMs: undefined };
    this.#groups.set(group, opened);
    opened.desk.catch((error: unknown) => {
      opened.failedAtMs = clock.monotonicMs();
      log.error({ group, err: error }, `"${group}" is neither captured nor served: ${publicMessage(error)}`);
    });
    return opened.desk;
  }

  /** Those that are open. */
  async all(): Promise<readonly { readonly group: string; readonly desk: GroupDesk }[]> {
    const open = await Promise.all(
      Array.from(this.#groups, ([group, { desk }]) =>
        desk.then(
          (one) => [{ group, desk: one }],
          // Told when it failed, and to whoever asks for it.
          () => [],
        ),
      ),
    );
    return open.flat();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { desk } of await this.all()) await desk[Symbol.asyncDispose]();
  }
}
