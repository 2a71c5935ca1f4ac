/**
 * How a guest is reached: QEMU listens on the server's own addresses, on the ports that its groups let in, and hands
 * what comes to the guest's network. QEMU itself is asked what it forwards, so that one that was adopted is brought up to date.
 */
import { mostForwardedPorts } from "#cloud/rule-forms.ts";
import type { Machine } from "#hypervisor/machine.ts";

const MOST_FORWARDS = 64;

export interface ForwardRule {
  readonly groupId: string;
  readonly direction: "ingress" | "egress";
  readonly protocol: string;
  /** Both null: every port. */
  readonly fromPort: number | null;
  readonly toPort: number | null;
}

export interface ForwardedPort {
  readonly protocol: "tcp" | "udp";
  readonly port: number;
}

export interface ForwardPlan {
  readonly ports: readonly ForwardedPort[];
  /** Why some traffic that the groups let in does not reach the guest, for its console. */
  readonly remarks: readonly string[];
}

/** In the order of the rules. */
export function planForwards(rules: readonly ForwardRule[]): ForwardPlan {
  const ports = new Map<string, ForwardedPort>();
  const remarks = new Set<string>();
  for (const each of rules) {
    if (each.direction !== "ingress") continue;
    const first = Math.max(1, each.fromPort ?? 1);
    const last = each.toPort ?? 65_535;
    const { protocol } = each;
    const isForwarded = protocol === "tcp" || protocol === "udp";
    if (!isForwarded || last - first >= mostForwardedPorts) remarks.add(remarkOn(each, isForwarded));
    else for (let port = first; port <= last; port++) ports.set(`${protocol} ${port}`, { protocol, port });
  }
  const chosen = Array.from(ports.values()).slice(0, MOST_FORWARDS);
  if (chosen.length < ports.size) {
    remarks.add(`only the first ${MOST_FORWARDS} of ${ports.size} admitted ports reach this guest`);
  }
  return { ports: chosen, remarks: Array.from(remarks) };
}

function remarkOn({ protocol, fromPort, toPort, groupId }: ForwardRule, isForwarded: boolean): string {
  const range =
    fromPort === null ? "all ports" : fromPort === toPort ? `port ${fromPort}` : `${fromPort}-${toPort}`;
  const why = isForwarded
    ? `a range of more than ${mostForwardedPorts} ports is not forwarded: name the ports`
    : "only TCP and UDP are forwarded";
  return `${groupId} lets in ${protocol} (${range}), which does not reach this guest: ${why}`;
}

/** Brings what QEMU forwards to `wanted` at each of the addresses; gives what it could not listen on, with QEMU's own words. */
export async function applyForwards(
  machine: Machine,
  addresses: readonly string[],
  wanted: readonly ForwardedPort[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const present = new Set(parseForwards(await monitor(machine, "info usernet", signal)));
  const asked = new Map(
    addresses.flatMap((address) =>
      wanted.map((each): [string, ForwardedPort] => [`${each.protocol}:${address}:${each.port}`, each]),
    ),
  );
  for (const forward of present) {
    if (!asked.has(forward)) await monitor(machine, `hostfwd_remove net0 ${forward}`, signal);
  }
  const failed: string[] = [];
  for (const [forward, { port }] of asked) {
    if (present.has(forward)) continue;
    const answer = await monitor(machine, `hostfwd_add net0 ${forward}-:${port}`, signal);
    if (answer.trim() !== "") failed.push(`${forward} is not forwarded: ${answer.trim()}`);
  }
  return failed;
}

/**
 * What is forwarded, as `tcp:127.40.0.1:80`, in the answer to `info usernet`, whose lines are
 * `TCP[HOST_FORWARD]  12  127.40.0.1  80  10.0.2.15  80  0  0`.
 */
export function parseForwards(answer: string): readonly string[] {
  return answer.split("\n").flatMap((line) => {
    const [kind, , host, port] = line.trim().split(/\s+/);
    if (kind !== "TCP[HOST_FORWARD]" && kind !== "UDP[HOST_FORWARD]") return [];
    return [`${kind.slice(0, 3).toLowerCase()}:${host}:${port}`];
  });
}

/** QMP has no command for it. Source: QEMU's documentation, "human-monitor-command". */
async function monitor(machine: Machine, line: string, signal: AbortSignal): Promise<string> {
  const answer = await machine.execute("human-monitor-command", { "command-line": line }, signal);
  return typeof answer === "string" ? answer : "";
}
