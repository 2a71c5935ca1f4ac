/** Made-up values of a shape, every member filled: what the tests of the codecs send through them. */
import type { AwsShape, ScalarShape } from "./aws-shape.ts";

/** In [0, 1). */
export type Fraction = () => number;

/** Date and Uint8Array as the vendor's client has them, or the text that decoded values have. */
export type SampleForm = "client" | "plain";

/** Undefined where a shape has nothing that could be written (an empty structure, or one inside itself). */
export function sampleValue(
  shape: AwsShape,
  fraction: Fraction,
  form: SampleForm,
  above: readonly AwsShape[] = [],
): unknown {
  if (above.includes(shape)) return undefined;
  const inside = [...above, shape];
  switch (shape.kind) {
    case "struct": {
      const made: Record<string, unknown> = {};
      for (const member of shape.members) {
        const value = sampleValue(member.shape, fraction, form, inside);
        if (value !== undefined) made[member.name] = value;
      }
      return Object.keys(made).length > 0 ? made : undefined;
    }
    case "list": {
      const items: unknown[] = [];
      const count = 1 + Math.floor(fraction() * 3);
      for (let index = 0; index < count; index += 1) {
        const item = sampleValue(shape.item, fraction, form, inside);
        if (item !== undefined) items.push(item);
      }
      return items.length > 0 ? items : undefined;
    }
    case "map": {
      const value = sampleValue(shape.value, fraction, form, inside);
      return value === undefined ? undefined : { [`key-${Math.floor(fraction() * 1e6)}`]: value };
    }
    case "string":
    case "number":
    case "boolean":
    case "timestamp":
    case "blob":
      return sampleScalar(shape.kind, fraction, form);
  }
}

const awkward = ["", " ", "&<>\"'", "a=b&c=d", "+%20%", "é", "𝒳 😀", "line\nline", "tab\t", "]]>", "~*!()'"];

function sampleScalar(kind: ScalarShape["kind"], fraction: Fraction, form: SampleForm): unknown {
  switch (kind) {
    case "string":
      return `v${awkward[Math.floor(fraction() * awkward.length)] ?? ""}${Math.floor(fraction() * 1e9).toString(36)}`;
    case "number":
      return Math.floor(fraction() * 2e6) - 1e6;
    case "boolean":
      return fraction() < 0.5;
    case "timestamp": {
      const date = new Date(Math.floor(fraction() * 4e9) * 1000);
      return form === "client" ? date : date.toISOString();
    }
    case "blob": {
      const bytes = Uint8Array.from({ length: 1 + Math.floor(fraction() * 40) }, () =>
        Math.floor(fraction() * 256),
      );
      return form === "client" ? bytes : Buffer.from(bytes).toString("base64");
    }
  }
}

/** Small seeded generator (mulberry32): a seed replays a run. */
export function seededFraction(seed: number): Fraction {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
