// Runs one benchmark: `npm run bench -- NAME`. A benchmark is a file beside this one that exports `run`, which measures
// its peer or limit and our own path in the same run, prints what it likes, and returns its key figures.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

type Figures = Record<string, number | string>;

interface Bench {
  run(): Promise<Figures>;
  /** One line for `--help`. */
  readonly summary?: string;
}

function names(): string[] {
  return readdirSync(import.meta.dirname)
    .filter((file) => file.endsWith(".ts") && file !== "run.ts" && !file.includes(".test."))
    .map((file) => file.slice(0, -".ts".length))
    .sort();
}

const load = async (name: string): Promise<Partial<Bench>> =>
  (await import(pathToFileURL(join(import.meta.dirname, `${name}.ts`)).href)) as Partial<Bench>;

async function help(): Promise<void> {
  console.log("usage: npm run bench -- NAME\n");
  for (const name of names()) {
    const bench = await load(name);
    if (bench.run !== undefined) console.log(`  ${name.padEnd(12)} ${bench.summary ?? ""}`.trimEnd());
  }
}

function print(figures: Figures): void {
  const width = Math.max(...Object.keys(figures).map((key) => key.length));
  for (const [key, value] of Object.entries(figures)) console.log(`${key.padEnd(width)}  ${value}`);
}

async function main(): Promise<number> {
  const [name] = process.argv.slice(2);
  if (name === undefined || name === "--help" || name === "-h") {
    await help();
    return name === undefined ? 2 : 0;
  }
  const bench = names().includes(name) ? await load(name) : {};
  if (bench.run === undefined) {
    console.error(`no benchmark ${name}; there are: ${names().join(", ")}`);
    return 2;
  }
  const figures = await bench.run();
  print(figures);
  console.log(JSON.stringify({ bench: name, ...figures }));
  return 0;
}

process.exitCode = await main();
