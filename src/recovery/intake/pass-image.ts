/** A pass of an agent as the write log knows it: an image of its disks, named so that it is told apart from a cloud's snapshot. Pure. */
import type { KeptVolume } from "#recovery/vault-desk.ts";

const shape = /^agent:(?<agent>[A-Za-z0-9._-]+):[0-9a-f]+:\d+$/u;

export function passImageId(agent: string, stream: string, pass: number): string {
  return `agent:${agent}:${stream.slice(0, 8)}:${pass}`;
}

export interface PassStatus {
  readonly agent: string;
  /** Instant of the last pass that is whole in the vault, in milliseconds since the epoch; null: another one is being taken in. */
  readonly at: number | null;
}

/** Undefined: no agent in a guest brings this volume. */
export function passStatusOf({ image, state }: KeptVolume): PassStatus | undefined {
  const { agent } = shape.exec(image?.id ?? "")?.groups ?? {};
  if (agent === undefined || image === null) return undefined;
  return { agent, at: state === "continuous" ? image.atMs : null };
}
