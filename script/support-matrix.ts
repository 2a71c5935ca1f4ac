// Writes docs/support-matrix.md from the program's own tables: what the gateway makes of each operation of the EC2 API.
// `--write` regenerates, `--check` fails on a difference.
import { readFileSync, writeFileSync } from "node:fs";
import { awsService } from "#wire/aws/service-model.ts";
import { ec2Coverage } from "#wire/ec2/ec2-changes.ts";

const path = "docs/support-matrix.md";

const what = {
  translated: "recorded; its effect is carried over to the standby",
  covered: "recorded; its effect is part of something else that is carried over, or needs no counterpart",
  gap: "recorded and forwarded; what it does has no counterpart, and is named as a gap",
} as const;

const { operations } = await awsService("ec2");
const coverage = new Map<string, string>(Object.entries(ec2Coverage));
const reads = [...operations.values()].filter(({ readOnly }) => readOnly);
const changes = [...operations.values()].filter(({ readOnly }) => !readOnly);
const kindOf = (name: string): keyof typeof what =>
  (coverage.get(name) as keyof typeof what | undefined) ?? "gap";
const named = (kind: keyof typeof what): string[] =>
  changes
    .map(({ name }) => name)
    .filter((name) => kindOf(name) === kind)
    .sort();

const text = `# Support matrix: the EC2 API through the gateway

Made from the program's own tables by \`node script/support-matrix.ts --write\`.

| | operations | what happens |
| --- | --- | --- |
| read | ${reads.length} | forwarded and streamed; not recorded |
| translated | ${named("translated").length} | ${what.translated} |
| covered | ${named("covered").length} | ${what.covered} |
| gap | ${named("gap").length} | ${what.gap} |

Elastic Load Balancing v2 and Auto Scaling are decoded from their vendor's model too: every change is forwarded and recorded, and is
named as a gap.

## Translated

${named("translated").join(", ")}

## Covered

${named("covered").join(", ")}

## Gap

Every other change, among them: ${named("gap").slice(0, 60).join(", ")}, …
`;

if (process.argv.includes("--write")) writeFileSync(path, text);
else if (readFileSync(path, "utf8") !== text) {
  console.error(`${path} differs from the program: run node script/support-matrix.ts --write`);
  process.exit(1);
}
