// The layer table: which folder of src/ may import which. One table, three readers: the linter (the
// generated part of .oxlintrc.json), ARCHITECTURE.md (the printed table) and the check that no folder
// stands outside it. `node script/layers.ts --write` regenerates, `--check` fails on a difference.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

const ground = ["kernel"];
const base = ["kernel", "model"];
const driver = [...base, "wire", "cloud"];
const room = [...base, "wire", "store", "cloud", "journal"];

/** Folder -> folders it may import (besides itself). Ordered from the ground up. */
export const layers: Record<string, string[]> = {
  kernel: [],
  model: ground,
  wire: base,
  store: base,
  cloud: base,
  journal: [...base, "store"],
  vault: base,
  nbd: [...base, "wire"],
  "drivers/memory": driver,
  "drivers/ec2": driver,
  "drivers/openstack": driver,
  "drivers/hypervisor": driver,
  gateway: room,
  environment: room,
  standby: [...room, "environment"],
  health: room,
  traffic: room,
  hypervisor: [...base, "wire", "cloud", "nbd"],
  agent: [...base, "wire"],
  recovery: [...room, "vault", "nbd", "environment"],
  takeover: [...room, "environment", "standby", "health", "traffic", "recovery"],
  devcloud: [...base, "wire", "store", "cloud", "nbd", "hypervisor"],
  api: [...room, "gateway", "environment", "standby", "health", "traffic", "takeover"],
  config: base,
  cli: [...base, "agent", "api", "devcloud", "config", "cloud", "health", "recovery", "takeover"],
  testing: [...room, "vault", "nbd"],
};

const TABLE_START = "<!-- layers:start -->";
const TABLE_END = "<!-- layers:end -->";

function overrides(): object[] {
  return Object.entries(layers).map(([folder, allowed]) => ({
    files: [`src/${folder}/**`],
    excludeFiles: ["**/*.test.ts"],
    rules: {
      "no-restricted-imports": [
        "error",
        {
          patterns: [
            {
              group: ["#*", "#*/**", `!#${folder}/**`, ...allowed.map((name) => `!#${name}/**`)],
              message: `${folder} may import: ${allowed.join(", ") || "nothing"} (script/layers.ts)`,
            },
          ],
        },
      ],
    },
  }));
}

function lintConfig(): string {
  const config = JSON.parse(readFileSync(".oxlintrc.base.json", "utf8"));
  config.overrides = [...(config.overrides ?? []), ...overrides()];
  return `${JSON.stringify(config, null, 2)}\n`;
}

function printedTable(): string {
  const rows = Object.entries(layers).map(
    ([folder, allowed]) =>
      `| \`${folder}\` | ${allowed.map((name) => `\`${name}\``).join(" ") || "nothing"} |`,
  );
  return [
    TABLE_START,
    "",
    "| folder | may import |",
    "| --- | --- |",
    ...rows,
    "| `main` | everything |",
    "",
    TABLE_END,
  ].join("\n");
}

function withTable(document: string): string {
  const start = document.indexOf(TABLE_START);
  const end = document.indexOf(TABLE_END);
  if (start < 0 || end < 0) return document;
  return document.slice(0, start) + printedTable() + document.slice(end + TABLE_END.length);
}

function foldersOutsideTheTable(): string[] {
  const known = new Set([...Object.keys(layers), "main"]);
  const found = readdirSync("src", { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap((entry) =>
      entry.name === "drivers" ? readdirSync("src/drivers").map((name) => `drivers/${name}`) : [entry.name],
    );
  return found.filter((name) => !known.has(name));
}

const outside = foldersOutsideTheTable();
if (outside.length > 0) {
  console.error(`folders without a row in script/layers.ts: ${outside.join(", ")}`);
  process.exit(1);
}
const wanted: [string, string][] = [
  [".oxlintrc.json", lintConfig()],
  ["ARCHITECTURE.md", withTable(readFileSync("ARCHITECTURE.md", "utf8"))],
];
if (process.argv.includes("--write")) {
  for (const [path, text] of wanted) writeFileSync(path, text);
} else {
  const stale = wanted.filter(([path, text]) => readFileSync(path, "utf8") !== text).map(([path]) => path);
  if (stale.length > 0) {
    console.error(`${stale.join(", ")} differ from script/layers.ts: run node script/layers.ts --write`);
    process.exit(1);
  }
}
