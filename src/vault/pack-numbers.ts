import { invariant } from "#kernel/invariant.ts";
import { SESSION_BYTES } from "./block-ref.ts";

/** The id of the n-th pack of a session. */
export function packIdIn(session: Buffer, counter: number): Buffer {
  const id = Buffer.alloc(SESSION_BYTES + 4);
  session.copy(id);
  id.writeUInt32BE(counter, SESSION_BYTES);
  return id;
}

/**
 * Small numbers for pack ids within this process. Packs of a running session take numbers from the table's counter in any
 * thread; their ids follow from the session, so that nobody has to tell anybody.
 */
export class PackNumbers {
  readonly #ids: string[] = [];
  readonly #numbers = new Map<string, number>();
  #session: { readonly id: Buffer; readonly from: number } | undefined;

  get count(): number {
    return this.#ids.length;
  }

  numberOf(pack: string): number {
    invariant(this.#session === undefined, "no pack is numbered while a session runs");
    const known = this.#numbers.get(pack);
    if (known !== undefined) return known;
    this.#numbers.set(pack, this.#ids.length);
    return this.#ids.push(pack) - 1;
  }

  begin(session: Buffer): number {
    this.#session = { id: session, from: this.#ids.length };
    return this.#ids.length;
  }

  idOf(number: number): string {
    const known = this.#ids[number];
    if (known !== undefined) return known;
    const session = this.#session;
    invariant(session !== undefined && number >= session.from, "a pack number belongs to a pack");
    for (let n = this.#ids.length; n <= number; n += 1) {
      const id = packIdIn(session.id, n - session.from).toString("hex");
      this.#ids.push(id);
      this.#numbers.set(id, n);
    }
    return this.#ids[number] as string;
  }

  end(nextNumber: number): void {
    if (nextNumber > 0) this.idOf(nextNumber - 1);
    this.#session = undefined;
  }
}
