/** Bytes to QMP messages, however the stream was cut. Also serves the guest agent, whose answers have the same shape. */
import { StringDecoder } from "node:string_decoder";
import { decodeQmpMessage, type QmpMessage } from "./qmp-message.ts";

/** `fault`: the line was not a message, or longer than the limit; what follows it is decoded as if it had not been. */
export type QmpDecoded =
  | { readonly ok: true; readonly message: QmpMessage }
  | { readonly ok: false; readonly fault: "not_a_message" | "too_long"; readonly line: string };

/** QEMU's own answers are below 1 MB; what a guest agent reads of a file may be more. */
const DEFAULT_MAX_LINE_CHARS = 16 * 1024 * 1024;
const SHOWN_CHARS = 200;

export class QmpDecoder {
  readonly #utf8 = new StringDecoder("utf8");
  readonly #maxLineChars: number;
  #parts: string[] = [];
  #length = 0;
  #skipping = false;

  /** Memory is bounded by it: a longer line is dropped while it comes in. */
  constructor(maxLineChars: number = DEFAULT_MAX_LINE_CHARS) {
    this.#maxLineChars = maxLineChars;
  }

  /** What the bytes complete, in order. Never throws. */
  push(bytes: Uint8Array): QmpDecoded[] {
    const decoded: QmpDecoded[] = [];
    const text = this.#utf8.write(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    let from = 0;
    for (;;) {
      const end = text.indexOf("\n", from);
      this.#take(text.slice(from, end < 0 ? undefined : end), decoded);
      if (end < 0) return decoded;
      this.#endLine(decoded);
      from = end + 1;
    }
  }

  #take(piece: string, decoded: QmpDecoded[]): void {
    if (piece === "" || this.#skipping) return;
    if (this.#length + piece.length > this.#maxLineChars) {
      const line = [...this.#parts, piece].join("").slice(0, SHOWN_CHARS);
      decoded.push({ ok: false, fault: "too_long", line });
      this.#skipping = true;
      this.#parts = [];
      this.#length = 0;
      return;
    }
    this.#parts.push(piece);
    this.#length += piece.length;
  }

  #endLine(decoded: QmpDecoded[]): void {
    // The guest agent begins an answer with byte 0xFF, which no UTF-8 text holds, so that a client can find the beginning.
    const line = this.#parts
      .join("")
      .replace(/^\uFFFD+/, "")
      .trim();
    this.#parts = [];
    this.#length = 0;
    this.#skipping = false;
    if (line === "") return;
    const message = decodeQmpMessage(line);
    if (message === null) {
      decoded.push({ ok: false, fault: "not_a_message", line: line.slice(0, SHOWN_CHARS) });
    } else decoded.push({ ok: true, message });
  }
}
