import { type BlobKind, type BlobRef, SESSION_BYTES, blobKinds, packName } from "./block-ref.ts";
import { encodeIndex } from "./index-object.ts";
import { PACK_TARGET, PackBuilder, decodeDirectory, packBufferBytes } from "./pack-format.ts";
import { packIdIn } from "./pack-numbers.ts";
import { seal, sealKinds } from "./sealed-object.ts";
import type { VaultContext } from "./vault-context.ts";

interface OpenPack {
  readonly builder: PackBuilder;
  readonly buffer: Buffer;
  readonly pack: string;
  readonly blobs: BlobRef[];
}

/** Stores blobs again, one after another, for repair and compaction: each pack is followed by its index. */
export class PackSink {
  readonly #context: VaultContext;
  readonly #session: string;
  readonly #signal: AbortSignal | undefined;
  readonly #places = new Map<string, BlobRef>();
  #data: OpenPack | undefined;
  #nodes: OpenPack | undefined;
  #number = 0;

  /** `session` is new, and the caller holds a write lease for it. */
  constructor(context: VaultContext, session: string, signal: AbortSignal | undefined) {
    this.#context = context;
    this.#session = session;
    this.#signal = signal;
  }

  async add(kind: BlobKind, id: Buffer, plain: Buffer): Promise<void> {
    const ofNodes = kind === blobKinds.node;
    let open = ofNodes ? this.#nodes : this.#data;
    if (open?.builder.isFull === true) {
      await this.#close(open);
      open = undefined;
    }
    open ??= this.#open();
    if (ofNodes) this.#nodes = open;
    else this.#data = open;
    const stored = open.builder.append(id, kind, plain);
    open.blobs.push({ id: id.toString("hex"), pack: open.pack, plainLength: plain.length, ...stored });
  }

  /** Where everything is, by id: durable when it returns. */
  async finish(): Promise<ReadonlyMap<string, BlobRef>> {
    for (const open of [this.#data, this.#nodes]) if (open !== undefined) await this.#close(open);
    return this.#places;
  }

  #open(): OpenPack {
    const id = packIdIn(Buffer.from(this.#session, "hex"), this.#number);
    this.#number += 1;
    const buffer = Buffer.alloc(packBufferBytes(PACK_TARGET));
    return {
      builder: new PackBuilder(this.#context.keys, id, buffer),
      buffer,
      pack: id.toString("hex"),
      blobs: [],
    };
  }

  async #close({ builder, buffer, pack, blobs }: OpenPack): Promise<void> {
    const { storage, keys } = this.#context;
    const { length, directory } = builder.finish();
    await storage.put(packName(pack), [buffer.subarray(0, length)], this.#signal);
    const name = `index/${this.#session}-s${pack.slice(SESSION_BYTES * 2)}`;
    const index = encodeIndex([{ pack, directory: decodeDirectory(name, directory) }]);
    await storage.put(name, [seal(keys, sealKinds.index, name, index)], this.#signal);
    for (const ref of blobs) this.#places.set(ref.id, ref);
  }
}
