/** A moment as people write it: a time, or how long ago. */
import { OperationalError } from "#kernel/errors.ts";

const unitMs = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** `2026-03-01T12:00:00Z`, `20s ago`, `5m ago` -> milliseconds since the epoch. Errors: `input.invalid`, also for the future. */
export function parseMoment(text: string, nowMs: number): number {
  const ago = /^(\d+(?:\.\d+)?)\s*([smhd])\s+ago$/u.exec(text.trim());
  const at =
    ago === null
      ? /^\d{4}-\d{2}-\d{2}T/u.test(text)
        ? Date.parse(text)
        : Number.NaN
      : nowMs - Number(ago[1]) * unitMs[ago[2] as keyof typeof unitMs];
  if (Number.isNaN(at)) {
    throw new OperationalError(
      "input.invalid",
      `"${text}" is no moment: write it like 2026-03-01T12:00:00Z, or like "20s ago", "5m ago", "2h ago", "1d ago"`,
    );
  }
  if (at > nowMs) throw new OperationalError("input.invalid", `${text} is in the future`);
  return Math.round(at);
}
