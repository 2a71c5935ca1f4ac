/**
 * Parts of passes that are durable here and not in the write log yet, sealed with the vault's key. A pass lies here until all of it has
 * come, however slowly, so that the disks' moments can be named all the while.
 */
import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile } from "#kernel/durable-file.ts";
import { OperationalError } from "#kernel/errors.ts";
import { seal, sealKinds, unseal } from "#vault/sealed-object.ts";
import type { VaultKeys } from "#vault/vault-keys.ts";

export interface StagePlace {
  readonly folder: string;
  readonly keys: Pick<VaultKeys, "objects">;
}

const digits = 15;
const shape = /^\d{15}\.part$/u;
const fileOf = (number: number): string => `${String(number).padStart(digits, "0")}.part`;

export class PartStage {
  readonly #place: StagePlace;
  readonly #stream: string;
  /** Number -> bytes on disk; in order. */
  readonly #parts = new Map<number, number>();

  private constructor(place: StagePlace, stream: string) {
    this.#place = place;
    this.#stream = stream;
  }

  /** Parts up to `applied` are not needed any more. Errors: `vault.damaged` where one between others is gone. */
  static async open(place: StagePlace, stream: string, applied: number): Promise<PartStage> {
    await mkdir(place.folder, { recursive: true, mode: 0o700 });
    const stage = new PartStage(place, stream);
    const names = (await readdir(place.folder)).filter((name) => shape.test(name)).toSorted();
    for (const name of names) {
      const number = Number.parseInt(name, 10);
      const path = join(place.folder, name);
      if (number <= applied) await rm(path, { force: true });
      else stage.#parts.set(number, (await stat(path)).size);
    }
    const expected = [...stage.#parts.keys()].findIndex((number, index) => number !== applied + 1 + index);
    if (expected >= 0) {
      throw new OperationalError(
        "vault.damaged",
        `${place.folder} lacks part ${applied + 1 + expected}: remove the folder, and the agent compares its disks with the vault anew`,
      );
    }
    return stage;
  }

  get numbers(): readonly number[] {
    return [...this.#parts.keys()];
  }

  get bytes(): number {
    let sum = 0;
    for (const size of this.#parts.values()) sum += size;
    return sum;
  }

  /** Durable when it returns. Errors: `store.full`, `store.failing`: nothing is kept then. */
  async add(number: number, part: Buffer): Promise<void> {
    const sealed = seal(this.#place.keys, sealKinds.intake, this.#nameOf(number), part);
    await replaceFile(join(this.#place.folder, fileOf(number)), sealed);
    this.#parts.set(number, sealed.length);
  }

  /** Errors: `vault.damaged`. */
  async read(number: number): Promise<Buffer> {
    const sealed = await readFile(join(this.#place.folder, fileOf(number)));
    return unseal(this.#place.keys, sealKinds.intake, this.#nameOf(number), sealed);
  }

  /** Parts up to this number are needed no more. */
  async drop(through: number): Promise<void> {
    for (const number of this.numbers) {
      if (number > through) return;
      await rm(join(this.#place.folder, fileOf(number)), { force: true });
      this.#parts.delete(number);
    }
  }

  #nameOf(number: number): string {
    return `intake/${this.#stream}/${number}`;
  }
}
