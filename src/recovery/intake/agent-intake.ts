/**
 * What one agent may do at the vault: begin a stream, ask what is known of its disks, and send parts of passes. Everything of one agent
 * happens one after the other, and each part counts once, however often it is sent.
 */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import type { Log } from "#kernel/log.ts";
import type { BlockDevice } from "#model/block-device.ts";
import { fenced } from "#recovery/desk/capture-session.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import type { VaultKeys } from "#vault/vault-keys.ts";
import type { IntakeStanding, PassPoint } from "#wire/agent/intake-calls.ts";
import { maxLeaves } from "#wire/agent/leaf-runs.ts";
import {
  decodePart,
  decodePartHeader,
  type PartHeader,
  type PassEnd,
  type PassVolume,
} from "#wire/agent/pass-part.ts";
import { applyParts } from "./apply-parts.ts";
import { type IntakeRecord, readIntakeRecord, writeIntakeRecord } from "./intake-record.ts";
import { leavesOf } from "./leaves-of.ts";
import { PartStage } from "./part-stage.ts";
import { passImageId } from "./pass-image.ts";

/** Whose volumes an agent's key is for: nothing else can be reached with it. */
export interface AgentRights {
  readonly name: string;
  /** The environment whose disks they are: shares one sequence of writes. */
  readonly environment: string;
  readonly volumes: readonly string[];
}

export interface IntakePorts {
  /** Of all agents. */
  readonly folder: string;
  readonly desk: VaultDesk;
  readonly keys: Pick<VaultKeys, "objects">;
  readonly openDisk: (uri: string, signal: AbortSignal) => Promise<BlockDevice>;
  readonly clock: Clock;
  readonly log: Log;
  /** Of one agent. A pass that is larger goes into the log as it comes: no moment can be named until it has ended. */
  readonly stageLimitBytes: number;
}

/** A disk of which there is no moment yet loses none: its content goes into the log as it comes. */
const firstCopyStageBytes = 64 * 1024 * 1024;

export class AgentIntake implements AsyncDisposable {
  readonly #rights: AgentRights;
  readonly #ports: IntakePorts;
  readonly #folder: string;
  readonly #stop = new AbortController();
  #record: IntakeRecord | null;
  #stage: PartStage | null;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(
    rights: AgentRights,
    ports: IntakePorts,
    record: IntakeRecord | null,
    stage: PartStage | null,
  ) {
    this.#rights = rights;
    this.#ports = ports;
    this.#folder = folderOf(ports, rights);
    this.#record = record;
    this.#stage = stage;
  }

  /** A pass that had come whole when the vault's process died is taken in now: its agent may be gone with its site. */
  static async open(rights: AgentRights, ports: IntakePorts): Promise<AgentIntake> {
    const folder = folderOf(ports, rights);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const record = await readIntakeRecord(folder);
    const stage =
      record === null
        ? null
        : await PartStage.open({ folder: partsIn(folder), keys: ports.keys }, record.stream, record.applied);
    const intake = new AgentIntake(rights, ports, record, stage);
    await intake.#resume();
    return intake;
  }

  /** `after`: see `intakeCalls`. Errors: `state.fenced`, `auth.forbidden` for a volume that is not the agent's. */
  begin(
    stream: string,
    after: number | null,
    volumes: readonly PassVolume[],
  ): Promise<IntakeStanding & { readonly epoch: number }> {
    this.#checkVolumes(volumes);
    return this.#inTurn(async (signal) => {
      const { desk, log, keys } = this.#ports;
      const { environment, name } = this.#rights;
      const status = await desk.status(environment, signal);
      if (this.#record?.stream === stream && this.#record.history === status?.history)
        return { ...this.#standing(), epoch: this.#record.epoch };
      const epoch = status?.epoch ?? 0;
      if (after !== null && epoch > after) throw fenced(environment, after, epoch);
      const history = await this.#admit(epoch, volumes, signal);
      await this.#letGo(volumes, signal);
      // Of the older stream, what was not whole is not wanted: this one compares its disks with what the log holds.
      await rm(partsIn(this.#folder), { recursive: true, force: true });
      const names = volumes.map(({ volume }) => volume);
      const point = this.#record?.point ?? null;
      await this.#remember({ format: 1, stream, epoch, history, volumes: names, applied: 0, point });
      this.#stage = await PartStage.open({ folder: partsIn(this.#folder), keys }, stream, 0);
      log.info({ agent: name, environment, epoch }, "an agent begins");
      return { ...this.#standing(), epoch };
    });
  }

  async standing(stream: string): Promise<IntakeStanding> {
    this.#check(stream);
    return this.#standing();
  }

  leaves(stream: string, volume: string, firstBlock: number, blocks: number): Promise<Buffer> {
    this.#checkVolumes([{ volume }]);
    if (blocks > maxLeaves) {
      throw new OperationalError(
        "input.too_large",
        `hashes of at most ${maxLeaves} blocks are given at once`,
      );
    }
    return this.#inTurn(async (signal) => {
      const record = this.#check(stream);
      const { desk, openDisk } = this.#ports;
      const group = this.#rights.environment;
      const kept = (await desk.volumes(group, signal)).find((one) => one.volume === volume);
      if (kept === undefined) throw new OperationalError("not_found", `volume ${volume} was not begun`);
      const { sizeBytes } = kept;
      const { uri, history } = await desk.protect(group, { volume, sizeBytes, epoch: record.epoch }, signal);
      checkHistory(record, history);
      await using disk = await openDisk(uri, signal);
      return await leavesOf(disk, firstBlock, blocks, signal);
    });
  }

  /** Durable when it returns; a pass that it ends is in the log, as a moment if it is one. */
  takePart(bytes: Buffer): Promise<IntakeStanding> {
    const { header } = decodePart(bytes);
    this.#checkVolumes(header.volumes);
    return this.#inTurn(async (signal) => {
      const record = this.#check(header.stream);
      const stage = this.#stage;
      invariant(stage !== null, "a stream has its stage");
      const { received } = this.#standing();
      if (header.number > received + 1) {
        throw new OperationalError(
          "not_found",
          `the vault has parts up to ${received} of this stream, and this is part ${header.number}: begin anew`,
        );
      }
      // What the environment has left behind is refused before it is kept.
      checkHistory(record, await this.#admit(record.epoch, header.volumes, signal));
      if (header.number > received) {
        if (stage.bytes + bytes.length > (await this.#stageLimit(header, signal))) {
          await this.#apply(stage.numbers, header, signal);
        }
        await stage.add(header.number, bytes);
      }
      if (header.end !== null && header.number > record.applied) await this.#end(header, signal);
      return this.#standing();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new OperationalError("aborted", "the vault's intake closes", { retry: "later" }));
    await this.#turn;
  }

  async #resume(): Promise<void> {
    const last = this.#stage?.numbers.at(-1);
    if (this.#stage === null || last === undefined) return;
    let ended: PartHeader | undefined;
    for (const number of this.#stage.numbers.toReversed()) {
      const header = decodePartHeader(await this.#stage.read(number));
      if (header.end === null || header.end.consistency === "fuzzy") continue;
      ended = header;
      break;
    }
    if (ended === undefined) return;
    try {
      const status = await this.#ports.desk.status(this.#rights.environment, this.#stop.signal);
      checkHistory(this.#known(), status?.history ?? "");
      await this.#end(ended, this.#stop.signal);
    } catch (error) {
      if (!isOperational(error)) throw error;
      const { name } = this.#rights;
      this.#ports.log.warn({ agent: name, code: error.code }, `its last pass waits: ${publicMessage(error)}`);
    }
  }

  async #end(header: PartHeader, signal: AbortSignal): Promise<void> {
    const { log } = this.#ports;
    const { name, environment } = this.#rights;
    const { number, pass, end } = header;
    if (end === null) return;
    const said = { agent: name, environment, pass, instantMs: end.instantMs };
    if (end.consistency === "fuzzy") {
      log.warn(said, `a pass is no moment of its disks: ${end.reason ?? ""}`);
      return;
    }
    const numbers = this.#stage?.numbers.filter((one) => one <= number) ?? [];
    await this.#apply(numbers, header, signal);
    log.info({ ...said, consistency: end.consistency }, "a pass is a moment of its disks");
  }

  /** `last`: the header of the last of the parts, or of one after it while more of the pass is to come. */
  async #apply(numbers: readonly number[], last: PartHeader, signal: AbortSignal): Promise<void> {
    const { desk, openDisk, clock } = this.#ports;
    const record = this.#known();
    const stage = this.#stage;
    invariant(stage !== null, "a stream has its stage");
    const group = this.#rights.environment;
    const { stream, pass, volumes, end, number } = last;
    const ended = end !== null && numbers.includes(number) ? end : null;
    const image = {
      id: passImageId(this.#rights.name, stream, pass),
      // Before its end a pass has no instant; nor is it offered.
      atMs: ended?.instantMs ?? clock.now(),
      volumes,
      ends: ended !== null,
    };
    await applyParts({ desk, group, epoch: record.epoch, openDisk, stage, numbers, image }, signal);
    const applied = Math.max(record.applied, numbers.at(-1) ?? 0);
    await this.#remember({ ...record, applied, point: pointOf(pass, ended, clock.now()) ?? record.point });
    await stage.drop(applied);
  }

  /** Answers the group's history. Errors: `state.fenced` once the environment has moved, `state.conflict` for a disk that has become smaller. */
  async #admit(epoch: number, volumes: readonly PassVolume[], signal: AbortSignal): Promise<string> {
    const { desk } = this.#ports;
    const { environment } = this.#rights;
    let history = "";
    for (const volume of volumes)
      history = (await desk.protect(environment, { ...volume, epoch }, signal)).history;
    const kept = await desk.volumes(environment, signal);
    for (const { volume, sizeBytes } of volumes) {
      const known = kept.find((one) => one.volume === volume)?.sizeBytes ?? 0;
      if (known <= sizeBytes) continue;
      throw new OperationalError(
        "state.conflict",
        `volume ${volume} has ${known} bytes in the vault, and its disk only ${sizeBytes}: a disk that became smaller is another volume, name it so`,
      );
    }
    return history;
  }

  /** What is not sent any more would hold up every moment of its environment, or lie in it as it was once. */
  async #letGo(volumes: readonly PassVolume[], signal: AbortSignal): Promise<void> {
    const left = this.#record?.volumes.filter((name) => !volumes.some(({ volume }) => volume === name)) ?? [];
    for (const volume of left) await this.#ports.desk.release(this.#rights.environment, volume, signal);
  }

  async #stageLimit(header: PartHeader, signal: AbortSignal): Promise<number> {
    const kept = await this.#ports.desk.volumes(this.#rights.environment, signal);
    const isFirst = header.volumes.some(({ volume }) => {
      const one = kept.find((known) => known.volume === volume);
      return one?.state === "synchronising" && one.reason === "first_copy";
    });
    const { stageLimitBytes } = this.#ports;
    return isFirst ? Math.min(firstCopyStageBytes, stageLimitBytes) : stageLimitBytes;
  }

  #checkVolumes(volumes: readonly Pick<PassVolume, "volume">[]): void {
    const other = volumes.find(({ volume }) => !this.#rights.volumes.includes(volume));
    if (other === undefined) return;
    throw new OperationalError(
      "auth.forbidden",
      `the key of agent "${this.#rights.name}" is not for volume ${other.volume}: name it in the vault's configuration`,
    );
  }

  #check(stream: string): IntakeRecord {
    const record = this.#record;
    if (record === null)
      throw new OperationalError("not_found", "the vault does not know this stream: begin");
    if (record.stream === stream) return record;
    throw new OperationalError(
      "state.conflict",
      `another installation sends for agent "${this.#rights.name}" now: stop one of the two, and remove the state folder of the one that stays`,
    );
  }

  #known(): IntakeRecord {
    invariant(this.#record !== null, "a stream has begun");
    return this.#record;
  }

  #standing(): IntakeStanding {
    const { applied, point } = this.#known();
    return { received: Math.max(applied, this.#stage?.numbers.at(-1) ?? 0), point };
  }

  async #remember(record: IntakeRecord): Promise<void> {
    await writeIntakeRecord(this.#folder, record);
    this.#record = record;
  }

  #inTurn<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { signal } = this.#stop;
    const done = this.#turn.then(() => {
      signal.throwIfAborted();
      return work(signal);
    });
    this.#turn = done.catch(() => {});
    return done;
  }
}

/** An agent sends what has changed since its last pass: that is of no use to a vault that does not have the passes before. */
function checkHistory(record: IntakeRecord, history: string): void {
  if (record.history === history) return;
  throw new OperationalError(
    "not_found",
    "what this stream has sent went into another folder of the vault, or another vault: begin",
  );
}

function pointOf(pass: number, end: PassEnd | null, takenMs: number): PassPoint | undefined {
  if (end === null || end.consistency === "fuzzy") return undefined;
  const { instantMs, consistency } = end;
  return { pass, instantMs, consistency, takenMs };
}

function folderOf({ folder }: IntakePorts, { name }: AgentRights): string {
  return join(folder, name);
}

function partsIn(folder: string): string {
  return join(folder, "parts");
}
