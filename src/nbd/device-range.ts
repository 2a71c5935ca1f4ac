import { OperationalError } from "#kernel/errors.ts";
import type { Extent } from "#model/block-device.ts";

/** @throws OperationalError `disk.range` unless the range lies within the device. */
export function checkRange(sizeBytes: number, offset: number, length: number): void {
  const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
  if (!valid || offset + length > sizeBytes)
    throw new OperationalError(
      "disk.range",
      `bytes ${offset} to ${offset + length} are not within a disk of ${sizeBytes} bytes`,
    );
}

/** Appends an extent, joined to the last one where both are of one kind. */
export function appendExtent(extents: Extent[], next: Extent): void {
  if (next.length === 0) return;
  const last = extents.at(-1);
  if (last !== undefined && last.kind === next.kind && last.offset + last.length === next.offset)
    extents[extents.length - 1] = { ...last, length: last.length + next.length };
  else extents.push(next);
}
