/**
 * Servers on and off: one worker a server, whose goal is always read anew from what is on record, so that a stop during a start is
 * seen when the start ends. After a restart of the agent, guests that run are taken over, and what is to run and does not is started.
 */
import type { ResourceStatus } from "#cloud/contract.ts";
import type { GuestKeeper } from "#hypervisor/guests/guest-keeper.ts";
import { planGuest } from "#hypervisor/guests/guest-plan.ts";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError, publicMessage } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { ResourceOf } from "#model/resource.ts";
import { guestOf } from "./site-guest.ts";
import type { SiteSettings } from "./site-settings.ts";
import type { SiteRecord, SiteStore } from "./site-store.ts";

/** A guest whose QEMU dies is started again; one that dies so often within the time is not. */
const MOST_DEATHS = 4;
const DEATHS_WITHIN_MS = 300_000;
const FIRST_PAUSE_MS = 500;

interface Standing {
  readonly state: "pending" | "ready" | "stopped" | "failed";
  /** The boot that this is about. */
  readonly boot: number;
  readonly fault?: string;
}

export interface PowerParts {
  readonly store: SiteStore;
  readonly keeper: GuestKeeper;
  readonly settings: SiteSettings;
  readonly clock: Clock;
  readonly log: Log;
}

export class SitePower implements AsyncDisposable {
  readonly #parts: PowerParts;
  readonly #standings = new Map<string, Standing>();
  readonly #workers = new Map<string, Promise<void>>();
  /** Starts that are under way, and of which boot. */
  readonly #starts = new Map<string, number>();
  readonly #deaths = new Map<string, readonly number[]>();
  readonly #closing = new AbortController();

  constructor(parts: PowerParts) {
    this.#parts = parts;
    parts.store.onChange(() => this.#touchAll());
    this.#touchAll();
  }

  statusOf({ resource, boot }: SiteRecord): { readonly status: ResourceStatus; readonly fault?: string } {
    if (resource.kind !== "server") return { status: "ready" };
    const standing = this.#standings.get(resource.id);
    if (standing === undefined) return { status: "pending" };
    const wanted = resource.spec.power === "running" ? boot : 0;
    if (standing.boot !== wanted) return { status: "pending" };
    const { state, fault } = standing;
    return { status: state, ...(fault === undefined ? {} : { fault }) };
  }

  /** Resolves when nothing is under way for the server; at once for one that is gone. */
  async settled(id: string): Promise<void> {
    for (let work = this.#workers.get(id); work !== undefined; work = this.#workers.get(id)) await work;
  }

  /** Its QEMU ended though nobody asked for it. */
  died(id: string): void {
    const { clock, store, keeper } = this.#parts;
    if (this.#starts.has(id)) {
      const fault = "its QEMU died while it started: see its console";
      keeper.abandon(id, new OperationalError("machine.failing", fault));
      return;
    }
    const now = clock.now();
    const deaths = [...(this.#deaths.get(id) ?? []), now].filter((at) => now - at < DEATHS_WITHIN_MS);
    this.#deaths.set(id, deaths);
    const boot = store.book.get("server", id)?.boot;
    if (boot === undefined || this.#closing.signal.aborted) return;
    if (deaths.length >= MOST_DEATHS) {
      const fault = `its QEMU died ${deaths.length} times within ${DEATHS_WITHIN_MS / 60_000} minutes: see its console`;
      this.#standings.set(id, { state: "failed", boot, fault });
      return;
    }
    this.#standings.delete(id);
    const pauseMs = FIRST_PAUSE_MS * 2 ** deaths.length;
    clock.sleep(pauseMs, this.#closing.signal).then(
      () => this.#touch(id),
      () => {},
    );
  }

  /** Guests run on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new OperationalError("aborted", "the host agent closes"));
    await Promise.all(this.#workers.values());
  }

  #touchAll(): void {
    const { book } = this.#parts.store;
    for (const id of this.#standings.keys()) if (book.get("server", id) === undefined) this.#forget(id);
    for (const { resource } of book.records("server")) this.#touch(resource.id);
  }

  #forget(id: string): void {
    this.#standings.delete(id);
    this.#deaths.delete(id);
  }

  #touch(id: string): void {
    this.#giveUpStale(id);
    if (this.#closing.signal.aborted || this.#workers.has(id) || !this.#isDue(id)) return;
    const work = this.#step(id).finally(() => {
      this.#workers.delete(id);
      // What changed meanwhile has its own turn.
      this.#touch(id);
    });
    this.#workers.set(id, work);
  }

  #isDue(id: string): boolean {
    const wanted = this.#wanted(id);
    return wanted !== undefined && this.#standings.get(id)?.boot !== wanted;
  }

  /** The boot that is asked for; 0: off. */
  #wanted(id: string): number | undefined {
    const record = this.#parts.store.book.get("server", id);
    if (record?.resource.kind !== "server") return undefined;
    return record.resource.spec.power === "running" ? record.boot : 0;
  }

  /** Nobody waits for a boot that is not wanted any more: it may be one that never ends. */
  #giveUpStale(id: string): void {
    const [start, wanted] = [this.#starts.get(id), this.#wanted(id)];
    if (start === undefined || wanted === undefined || start === wanted) return;
    const reason = new OperationalError("aborted", `server ${id} is to be otherwise`);
    this.#parts.keeper.abandon(id, reason);
  }

  /** Brings the server to what is on record; never rejects: what fails is its fault. */
  async #step(id: string): Promise<void> {
    const { store, keeper, log } = this.#parts;
    const record = store.book.get("server", id);
    if (record?.resource.kind !== "server") return;
    const { boot } = record;
    const server = record.resource;
    const isOn = server.spec.power === "running";
    try {
      if (isOn) await this.#start(record, server);
      else await keeper.stop(id);
      this.#standings.set(id, isOn ? { state: "ready", boot } : { state: "stopped", boot: 0 });
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      const fault = publicMessage(error);
      // What was given up because something else is wanted now is no failure.
      if (this.#wanted(id) === (isOn ? boot : 0)) log.error({ server: id, error: fault }, "a server failed");
      this.#standings.set(id, { state: "failed", boot: isOn ? boot : 0, fault });
    }
    if (store.book.get("server", id) === undefined) this.#forget(id);
  }

  #start(record: SiteRecord, server: ResourceOf<"server">): Promise<void> {
    const { store, keeper, settings } = this.#parts;
    const { boot, privateIp } = record;
    const guest = guestOf(record, server, store.book, settings);
    const start = { id: server.id, boot, address: privateIp ?? "" };
    this.#starts.set(server.id, boot);
    return keeper
      .start(start, (disks) => planGuest(guest, disks))
      .finally(() => this.#starts.delete(server.id));
  }
}
