import type { ConformanceReport, ConformanceResult } from "./conformance.ts";

const marks = { passed: "ok  ", failed: "FAIL", not_applicable: "n/a " } as const;

/** One line for progress; a failure's reason follows on lines of its own. */
export function formatConformanceResult(result: ConformanceResult): string {
  const line = `${marks[result.result]} ${result.name}`;
  switch (result.result) {
    case "passed":
      return `${line} (${(result.durationMs / 1000).toFixed(1)} s)`;
    case "failed":
      return [line, ...result.error.split("\n").map((text) => `       ${text}`)].join("\n");
    case "not_applicable":
      return `${line}: ${result.why}`;
  }
}

/** Whether the cloud keeps the contract and nothing was left behind: computed from every case, never assumed. */
export function conformancePassed(report: ConformanceReport): boolean {
  return (
    !report.interrupted &&
    report.notRemoved.length === 0 &&
    report.results.length > 0 &&
    report.results.every(({ result }) => result !== "failed")
  );
}

export function formatConformanceReport(report: ConformanceReport): string[] {
  const count = (result: ConformanceResult["result"]): number =>
    report.results.filter((one) => one.result === result).length;
  const lines = [
    `${count("passed")} passed, ${count("failed")} failed, ${count("not_applicable")} not applicable` +
      (report.interrupted ? ", interrupted" : ""),
  ];
  if (report.leftovers > 0)
    lines.push(`removed ${report.leftovers} resources that an earlier run left behind`);
  if (report.notRemoved.length > 0) {
    lines.push(`could not remove (scope ${report.scope}): ${report.notRemoved.join(", ")}`);
  }
  return lines;
}
