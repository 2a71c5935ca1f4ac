/** An agent's folder: what it sends, what the vault has of its disks, and what is still to be sent. One process at a time. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { invariant } from "#kernel/invariant.ts";
import { lockFile } from "#kernel/lock-file.ts";
import { decodePart, passBlockBytes, type PassPart } from "#wire/agent/pass-part.ts";
import { LeafFile, leafFor } from "./leaf-file.ts";
import { Spool } from "./spool.ts";
import { readStreamRecord, type StreamRecord, writeStreamRecord } from "./stream-record.ts";

export class AgentState implements AsyncDisposable {
  readonly folder: string;
  readonly spool: Spool;
  readonly #leaves: ReadonlyMap<string, LeafFile>;
  readonly #lock: Disposable;
  #record: StreamRecord | null;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(
    folder: string,
    spool: Spool,
    leaves: ReadonlyMap<string, LeafFile>,
    lock: Disposable,
    record: StreamRecord | null,
  ) {
    this.folder = folder;
    this.spool = spool;
    this.#leaves = leaves;
    this.#lock = lock;
    this.#record = record;
  }

  /** Errors: `state.conflict` when another agent has the folder. */
  static async open(
    folder: string,
    volumes: readonly string[],
    spoolLimitBytes: number,
  ): Promise<AgentState> {
    await mkdir(join(folder, "leaves"), { recursive: true, mode: 0o700 });
    const taken = `another agent uses ${folder}: stop it, or give this one its own state folder`;
    const lock = lockFile(join(folder, "agent.lock"), taken);
    const leaves = new Map<string, LeafFile>();
    try {
      const record = await readStreamRecord(folder);
      const spool = await Spool.open(join(folder, "spool"), spoolLimitBytes);
      for (const volume of volumes)
        leaves.set(volume, await LeafFile.open(join(folder, "leaves", encodeURIComponent(volume))));
      const state = new AgentState(folder, spool, leaves, lock, record);
      await state.#replay();
      return state;
    } catch (error) {
      for (const file of leaves.values()) await file[Symbol.asyncDispose]();
      lock[Symbol.dispose]();
      throw error;
    }
  }

  /** Null: nothing was begun. */
  get record(): StreamRecord | null {
    return this.#record;
  }

  leavesOf(volume: string): LeafFile {
    const leaves = this.#leaves.get(volume);
    invariant(leaves !== undefined, "a configured volume has its leaves");
    return leaves;
  }

  get nextPart(): number {
    return Math.max(this.#record?.acknowledged ?? 0, this.spool.numbers.at(-1) ?? 0) + 1;
  }

  /** Durable, one change after the other. */
  remember(change: Partial<StreamRecord>): Promise<void> {
    const done = this.#turn.then(async () => {
      invariant(this.#record !== null, "a stream was made");
      const next = { ...this.#record, ...change };
      await writeStreamRecord(this.folder, next);
      this.#record = next;
    });
    this.#turn = done.catch(() => {});
    return done;
  }

  /** A stream that the vault is yet to hear of: nothing of an older one counts. */
  async beginAnew(stream: string, volumes: readonly string[]): Promise<void> {
    await this.#turn;
    const before = this.#record;
    const next: StreamRecord = {
      format: 1,
      stream,
      epoch: null,
      after: before?.epoch ?? before?.after ?? null,
      volumes: [...volumes],
      compared: {},
      ready: false,
      acknowledged: 0,
      pass: before?.pass ?? 0,
      point: before?.point ?? null,
    };
    await writeStreamRecord(this.folder, next);
    this.#record = next;
    await this.#clear();
  }

  async syncLeaves(): Promise<void> {
    for (const leaves of this.#leaves.values()) await leaves.sync();
  }

  /** A part is durable in the spool, and its leaves say so. */
  async keepPart(number: number, part: PassPart, bytes: Buffer): Promise<void> {
    await this.spool.add(number, bytes);
    await this.#writeLeaves(part);
  }

  /** The vault has all parts up to this one: the leaves must be durable before the parts, of which they could be made anew, go. */
  async acknowledge(through: number, point: StreamRecord["point"]): Promise<void> {
    await this.syncLeaves();
    await this.remember({ acknowledged: Math.max(this.#record?.acknowledged ?? 0, through), point });
    await this.spool.drop(through);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turn;
    for (const leaves of this.#leaves.values()) await leaves[Symbol.asyncDispose]();
    this.#lock[Symbol.dispose]();
  }

  async #clear(): Promise<void> {
    await this.spool.drop(Number.MAX_SAFE_INTEGER);
    for (const leaves of this.#leaves.values()) await leaves.clear();
    await this.syncLeaves();
  }

  /** What was spooled before a crash is in the leaves, whether or not they had been written. */
  async #replay(): Promise<void> {
    // Nothing is spooled, and no leaf is known, before the vault has answered: what is there is of an older stream.
    if (this.#record === null || this.#record.epoch === null) return this.#clear();
    await this.spool.drop(this.#record.acknowledged);
    for (const number of this.spool.numbers)
      await this.#writeLeaves(decodePart(await this.spool.read(number)));
    await this.syncLeaves();
  }

  async #writeLeaves({ header, records }: PassPart): Promise<void> {
    for (const { volume, offset, length, data } of records) {
      const name = header.volumes[volume]?.volume ?? "";
      const leaves = this.#leaves.get(name);
      // Of a disk that was taken out of the configuration: a new stream begins then.
      if (leaves === undefined) continue;
      await leaves.write(offset / passBlockBytes, leafFor(data ?? Buffer.alloc(length)));
    }
  }
}
