import { z } from "zod";
import { isOperational } from "#kernel/errors.ts";
import { sealKinds, unseal, seal } from "./sealed-object.ts";
import { damaged } from "./vault-damage.ts";
import type { VaultContext } from "./vault-context.ts";

const schema = z.strictObject({ atMs: z.int(), packs: z.array(z.string().regex(/^[0-9a-f]{40}$/)) });

export interface Condemnation {
  readonly name: string;
  readonly atMs: number;
  readonly packs: readonly string[];
}

type CondemnedContext = Pick<VaultContext, "storage" | "keys" | "clock" | "random">;

export async function writeCondemnation(
  context: CondemnedContext,
  packs: readonly string[],
): Promise<Condemnation> {
  const atMs = context.clock.now();
  const name = `condemned/${String(atMs).padStart(16, "0")}-${context.random.hex(8)}`;
  const plain = Buffer.from(JSON.stringify({ atMs, packs }));
  await context.storage.put(name, [seal(context.keys, sealKinds.condemned, name, plain)]);
  return { name, atMs, packs };
}

export async function readCondemnations(
  context: CondemnedContext,
  signal?: AbortSignal,
): Promise<Condemnation[]> {
  const all: Condemnation[] = [];
  for await (const { name } of context.storage.list("condemned/", signal)) {
    let bytes: Buffer;
    try {
      bytes = await context.storage.get(name, undefined, signal);
    } catch (error) {
      // Carried out meanwhile: its packs and their index are gone.
      if (isOperational(error, "not_found")) continue;
      throw error;
    }
    const plain = unseal(context.keys, sealKinds.condemned, name, bytes);
    const parsed = schema.safeParse(JSON.parse(plain.toString("utf8")));
    if (!parsed.success) throw damaged(name, "is not a condemnation", parsed.error);
    all.push({ name, ...parsed.data });
  }
  return all;
}

export async function condemnedPacks(context: CondemnedContext, signal?: AbortSignal): Promise<Set<string>> {
  return new Set((await readCondemnations(context, signal)).flatMap(({ packs }) => packs));
}
