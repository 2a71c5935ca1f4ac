/** Comparing what was asked for with what the cloud shows. */

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `unclear`: nothing differs, but nothing that was asked for is shown either. */
export type Match = "yes" | "no" | "unclear";

/** Whether the shown state has all the asked values; members that it does not have do not count against it. */
export function includes(state: unknown, asked: unknown): Match {
  if (isRecord(asked)) {
    if (!isRecord(state)) return "no";
    let shown = false;
    for (const [name, value] of Object.entries(asked)) {
      if (!Object.hasOwn(state, name)) continue;
      const match = includes(state[name], value);
      if (match === "no") return "no";
      shown ||= match === "yes";
    }
    return shown || Object.keys(asked).length === 0 ? "yes" : "unclear";
  }
  if (Array.isArray(asked)) {
    if (!Array.isArray(state) || state.length !== asked.length) return "no";
    const every = asked.every((item) => state.some((one) => includes(one, item) !== "no"));
    return every ? "yes" : "no";
  }
  // Sizes and ports come as text from some clients, and go back as numbers.
  return plain(state) === plain(asked) ? "yes" : "no";
}

function plain(value: unknown): unknown {
  return typeof value === "number" ? String(value) : (value ?? null);
}
