/** Who writes into a group's volumes: the connections of their hosts, and what is known of how whole they are. */
import type { ExportConnection, NbdExport } from "#nbd/export-provider.ts";
import type { KeptVolume } from "#recovery/vault-desk.ts";
import { CaptureTarget } from "#vault/write-log/capture-target.ts";
import type { WriteLog } from "#vault/write-log/write-log.ts";
import { CaptureSession, fenced } from "./capture-session.ts";
import { ImageSession } from "./image-session.ts";
import { WriteOrder } from "./write-order.ts";

export interface CaptureSessionsOptions {
  readonly group: string;
  readonly log: WriteLog;
  /** Writes under an older fencing epoch are refused. */
  readonly epoch: () => number;
  /** Sessions are numbered from there on: no number may be one of an earlier process. */
  readonly firstNumber: number;
}

interface Session {
  readonly volume: string;
  readonly epoch: number;
  /** Rises with each connection of the volume; 0 for one that brings an image. */
  readonly number: number;
  readonly device: CaptureSession | ImageSession;
  /** Absent while it is in its handshake. */
  connection?: ExportConnection;
}

export class CaptureSessions {
  readonly #options: CaptureSessionsOptions;
  readonly #sessions = new Set<Session>();
  readonly #orders = new Map<string, WriteOrder>();
  /** Volume -> number of its last connection. */
  readonly #last = new Map<string, number>();
  /** Volume -> the last session whose copy its host called whole. */
  readonly #confirmed = new Map<string, number>();
  #next: number;

  constructor(options: CaptureSessionsOptions) {
    this.#options = options;
    this.#next = options.firstNumber;
  }

  /** Errors: `state.fenced`. */
  admit(epoch: number): void {
    const now = this.#options.epoch();
    if (epoch < now) throw fenced(this.#options.group, epoch, now);
  }

  /** An export that takes in the volume's writes. Undefined: there is no such volume. */
  async openCapture(volume: string, epoch: number, signal: AbortSignal): Promise<NbdExport | undefined> {
    const { log } = this.#options;
    const known = log.volumes().find(({ id }) => id === volume);
    if (known === undefined) return undefined;
    this.admit(epoch);
    // What a host sent by a connection that it has given up takes its place before anything that it sends by this one.
    const before = [...this.#sessions].flatMap((one) =>
      one.volume === volume ? (one.connection ?? []) : [],
    );
    await Promise.all(before.map((connection) => connection.caughtUp(signal)));
    const number = this.#next;
    this.#next += 1;
    this.#last.set(volume, number);
    const wasWhole = known.state !== "synchronising" || known.reason !== "first_copy";
    const device = new CaptureSession({
      target: new CaptureTarget(log, volume),
      order: this.#orderOf(volume),
      admit: () => this.admit(epoch),
      wasWhole: () => wasWhole,
    });
    return this.#exported({ volume, epoch, number, device });
  }

  /** An export that takes in images of the volume. Undefined: there is no such volume. */
  openImage(volume: string, epoch: number): NbdExport | undefined {
    const { log } = this.#options;
    if (!log.volumes().some(({ id }) => id === volume)) return undefined;
    this.admit(epoch);
    const device = new ImageSession({
      target: new CaptureTarget(log, volume),
      order: this.#orderOf(volume),
      volume: () => log.volume(volume),
      admit: () => this.admit(epoch),
    });
    return this.#exported({ volume, epoch, number: 0, device });
  }

  /** Resolves when no write under an older epoch than that in force is under way. */
  async quiet(): Promise<void> {
    const older = [...this.#sessions].filter((session) => session.epoch < this.#options.epoch());
    await Promise.all(older.map(({ device }) => device.quiet()));
  }

  /** The capture of the volume is continuous, as far as its host saw; stale unless no connection has come since. */
  async markWhole(volume: string, session: number): Promise<void> {
    if (this.#last.get(volume) !== session) return;
    // A host has two: one for what its guest writes, one for what it copies. Also what has brought nothing yet: its first write is then no
    // beginning of a copy.
    for (const { volume: of, number, device } of this.#sessions)
      if (of === volume && number <= session && device instanceof CaptureSession) device.confirm();
    this.#confirmed.set(volume, session);
    const { log } = this.#options;
    if (log.volume(volume).state !== "synchronising") return;
    await new CaptureTarget(log, volume).completeSynchronisation();
  }

  kept(): readonly KeptVolume[] {
    return this.#options.log.volumes().flatMap(({ id, sizeBytes, state, reason, image = null }) => {
      if (state === "released") return [];
      const session = this.#last.get(id) ?? 0;
      const confirmed = this.#confirmed.get(id) === session;
      return [{ volume: id, sizeBytes, state, reason, session, confirmed, image }];
    });
  }

  #orderOf(volume: string): WriteOrder {
    const present = this.#orders.get(volume) ?? new WriteOrder();
    this.#orders.set(volume, present);
    return present;
  }

  #exported(session: Session): NbdExport {
    this.#sessions.add(session);
    return {
      writable: true,
      device: session.device,
      // One connection: another one is another session, which may have missed writes.
      multiConn: false,
      attached: (connection) => {
        session.connection = connection;
      },
      [Symbol.asyncDispose]: async () => {
        this.#sessions.delete(session);
      },
    };
  }
}
