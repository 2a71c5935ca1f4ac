/** Recorded answers of real services (OpenStack Zed), for tests. */
import { readFileSync } from "node:fs";
import { z } from "zod";

const service = z.enum(["identity", "compute", "network", "image", "volume"]).catch("volume");

const errorFixture = z.object({
  name: z.string(),
  service,
  method: z.string(),
  path: z.string(),
  status: z.number(),
  contentType: z.string(),
  body: z.string(),
});

const exchangeFixture = z.object({
  name: z.string(),
  service,
  method: z.string(),
  path: z.string(),
  status: z.number(),
  request: z.unknown().optional(),
  response: z.unknown().optional(),
});
export type ExchangeFixture = z.infer<typeof exchangeFixture>;

function read(name: string): unknown {
  return JSON.parse(readFileSync(new URL(`./fixtures/${name}.json`, import.meta.url), "utf8"));
}

export function errorFixtures(): z.infer<typeof errorFixture>[] {
  return z.array(errorFixture).parse(read("errors"));
}

export function exchangeFixtures(): ReadonlyMap<string, ExchangeFixture> {
  const all = z.array(exchangeFixture).parse(read("exchanges"));
  return new Map(all.map((one) => [one.name, one]));
}
