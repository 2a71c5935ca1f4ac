/** Small reads of a disk, in pieces that are kept for a while: a file system's own blocks lie close together and are wanted again and again. */
import type { BlockReader } from "#model/block-device.ts";

const pieceBytes = 64 * 1024;
/** 8 MiB. */
const mostPieces = 128;

export class CachedReads {
  readonly sizeBytes: number;
  readonly #reader: Pick<BlockReader, "sizeBytes" | "read">;
  /** In order of use. */
  readonly #pieces = new Map<number, Buffer>();
  #readBytes = 0;

  constructor(reader: Pick<BlockReader, "sizeBytes" | "read">) {
    this.#reader = reader;
    this.sizeBytes = reader.sizeBytes;
  }

  /** Of the disk, so far. */
  get readBytes(): number {
    return this.#readBytes;
  }

  /** Undefined: the range is not on the disk, which only a damaged or hostile file system asks for. */
  async read(offset: number, length: number, signal: AbortSignal): Promise<Buffer | undefined> {
    const end = offset + length;
    if (!Number.isSafeInteger(offset) || offset < 0 || length < 0 || end > this.sizeBytes) return undefined;
    const parts: Buffer[] = [];
    for (let at = offset; at < end;) {
      const piece = Math.floor(at / pieceBytes);
      const bytes = await this.#piece(piece, signal);
      const from = at - piece * pieceBytes;
      const part = bytes.subarray(from, Math.min(from + end - at, bytes.length));
      parts.push(part);
      at += part.length;
    }
    return parts.length === 1 ? parts[0] : Buffer.concat(parts);
  }

  async #piece(piece: number, signal: AbortSignal): Promise<Buffer> {
    const present = this.#pieces.get(piece);
    if (present !== undefined) {
      this.#pieces.delete(piece);
      this.#pieces.set(piece, present);
      return present;
    }
    signal.throwIfAborted();
    const offset = piece * pieceBytes;
    const bytes = await this.#reader.read(offset, Math.min(pieceBytes, this.sizeBytes - offset), signal);
    this.#readBytes += bytes.length;
    this.#pieces.set(piece, bytes);
    const oldest = this.#pieces.keys().next().value;
    if (this.#pieces.size > mostPieces && oldest !== undefined) this.#pieces.delete(oldest);
    return bytes;
  }
}
