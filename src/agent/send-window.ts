/** Times of day at which parts may be sent. Pure. */

export interface TimeRange {
  /** Minutes since midnight; a range that ends before it starts goes over midnight. */
  readonly fromMinute: number;
  readonly toMinute: number;
}

export interface SendWindow {
  readonly zone: "utc" | "local";
  /** Empty: always. */
  readonly ranges: readonly TimeRange[];
}

export function isOpen(window: SendWindow, nowMs: number): boolean {
  const minute = minuteOf(window, nowMs);
  return window.ranges.length === 0 || window.ranges.some((range) => contains(range, minute));
}

/** 0: it is open. Else until the next full minute, when it is to be asked again: clocks are put forward and back. */
export function waitForWindowMs(window: SendWindow, nowMs: number): number {
  if (isOpen(window, nowMs)) return 0;
  return 60_000 - (nowMs % 60_000);
}

function contains({ fromMinute, toMinute }: TimeRange, minute: number): boolean {
  if (fromMinute === toMinute) return true;
  if (fromMinute < toMinute) return fromMinute <= minute && minute < toMinute;
  return minute >= fromMinute || minute < toMinute;
}

function minuteOf({ zone }: SendWindow, nowMs: number): number {
  const now = new Date(nowMs);
  return zone === "utc"
    ? now.getUTCHours() * 60 + now.getUTCMinutes()
    : now.getHours() * 60 + now.getMinutes();
}
