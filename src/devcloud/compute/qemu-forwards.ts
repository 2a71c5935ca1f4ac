/**
 * How a guest is reached: QEMU listens on the server's own loopback address, on the TCP ports that its groups let in, and hands
 * what comes to the guest's network. QEMU itself is asked what it forwards, so that one that was adopted is brought up to date.
 */
import type { Cloud } from "#devcloud/core/cloud.ts";
import type { RuleRecord, ServerRecord } from "#devcloud/core/records.ts";
import type { Machine } from "#hypervisor/machine.ts";

/** A rule for more ports than this cannot be a listener for each. */
export const LARGEST_RANGE = 32;
const MOST_FORWARDS = 64;

export interface ForwardPlan {
  readonly ports: readonly number[];
  /** Why some traffic that the groups let in does not reach the guest, for its console. */
  readonly remarks: readonly string[];
}

/** Of the groups of all the server's ports. */
export function rulesOf(cloud: Cloud, server: ServerRecord): readonly RuleRecord[] {
  const { port, rule } = cloud.data.tables;
  const groupIds = new Set(server.portIds.flatMap((id) => port.get(id)?.groupIds ?? []));
  return Array.from(groupIds).flatMap((id) => rule.by("group", id));
}

/** In the order of the rules. */
export function planForwards(rules: readonly RuleRecord[]): ForwardPlan {
  const ports = new Set<number>();
  const remarks = new Set<string>();
  for (const each of rules) {
    if (each.direction !== "ingress") continue;
    const first = Math.max(1, each.fromPort ?? 1);
    const last = each.toPort ?? 65_535;
    const isTcp = each.protocol === "tcp";
    if (!isTcp || last - first >= LARGEST_RANGE) remarks.add(remarkOn(each, isTcp));
    else for (let number = first; number <= last; number++) ports.add(number);
  }
  const chosen = Array.from(ports).slice(0, MOST_FORWARDS);
  if (chosen.length < ports.size) {
    remarks.add(`only the first ${MOST_FORWARDS} of ${ports.size} admitted ports reach this guest`);
  }
  return { ports: chosen, remarks: Array.from(remarks) };
}

function remarkOn({ protocol, fromPort, toPort, groupId }: RuleRecord, isTcp: boolean): string {
  const range =
    fromPort === null ? "all ports" : fromPort === toPort ? `port ${fromPort}` : `${fromPort}-${toPort}`;
  const why = isTcp
    ? `a range of more than ${LARGEST_RANGE} ports is not forwarded: name the ports`
    : "only TCP is forwarded";
  return `${groupId} lets in ${protocol} (${range}), which does not reach this guest: ${why}`;
}

/** Brings what QEMU forwards to `wanted`; gives the ports that it could not listen on, with QEMU's own words. */
export async function applyForwards(
  machine: Machine,
  address: string,
  wanted: readonly number[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const present = new Set(parseForwards(await monitor(machine, "info usernet", signal), address));
  for (const port of present) {
    if (!wanted.includes(port)) await monitor(machine, `hostfwd_remove net0 tcp:${address}:${port}`, signal);
  }
  const failed: string[] = [];
  for (const port of wanted) {
    if (present.has(port)) continue;
    const answer = await monitor(machine, `hostfwd_add net0 tcp:${address}:${port}-:${port}`, signal);
    if (answer.trim() !== "") failed.push(`port ${port} at ${address} is not forwarded: ${answer.trim()}`);
  }
  return failed;
}

/**
 * The forwarded ports of `address` in the answer to `info usernet`, whose lines are
 * `TCP[HOST_FORWARD]  12  127.40.0.1  80  10.0.2.15  80  0  0`.
 */
export function parseForwards(answer: string, address: string): readonly number[] {
  return answer.split("\n").flatMap((line) => {
    const [kind, , host, port] = line.trim().split(/\s+/);
    return kind === "TCP[HOST_FORWARD]" && host === address ? [Number(port)] : [];
  });
}

/** QMP has no command for it. Source: QEMU's documentation, "human-monitor-command". */
async function monitor(machine: Machine, line: string, signal: AbortSignal): Promise<string> {
  const answer = await machine.execute("human-monitor-command", { "command-line": line }, signal);
  return typeof answer === "string" ? answer : "";
}
