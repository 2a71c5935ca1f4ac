/** What operators scrape, in Prometheus' text format: the same figures that the status shows. */
import { Gauge, Registry } from "prom-client";
import type { Gateway } from "#gateway/start-gateway.ts";
import type { ControlPlane } from "#takeover/control.ts";

export async function collectMetrics(controlPlane: ControlPlane, gateway: Gateway): Promise<string> {
  const registry = new Registry();
  const gauge = (name: string, help: string, labelNames: readonly string[] = []): Gauge =>
    new Gauge({ name: `understudy_${name}`, help, labelNames: [...labelNames], registers: [registry] });

  const stats = gateway.stats();
  gauge("gateway_requests_total", "Requests that came to the gateway since its start").set(stats.requests);
  gauge("gateway_reads_total", "Reads passed through").set(stats.reads);
  const changes = gauge("gateway_changes_total", "Changes by recorded outcome", ["outcome"]);
  for (const [outcome, count] of Object.entries(stats.changes)) changes.set({ outcome }, count);
  gauge("gateway_in_progress", "Requests under way").set(stats.inProgress);
  gauge("gateway_open_commands", "Commands whose outcome is not known").set(stats.open);

  const perEnvironment = {
    epoch: gauge("environment_epoch", "Fencing epoch", ["environment"]),
    ready: gauge("environment_ready", "1 when everything needed for a takeover was seen to work", [
      "environment",
    ]),
    behindState: gauge("environment_state_behind", "Commands not yet folded", ["environment"]),
    behindStandby: gauge("environment_standby_behind", "Commands that the reserve has not followed", [
      "environment",
    ]),
    queue: gauge("environment_takeover_calls", "Calls that a takeover would still make", ["environment"]),
    seconds: gauge("environment_takeover_seconds", "Estimated duration of those calls", ["environment"]),
    gaps: gauge("environment_gaps", "Gaps by severity", ["environment", "severity"]),
    servers: gauge("environment_servers", "Servers by side", ["environment", "side"]),
  };
  for (const environment of controlPlane.environments()) {
    const status = await controlPlane.status(environment);
    perEnvironment.epoch.set({ environment }, status.epoch);
    perEnvironment.ready.set({ environment }, status.health === "ready" ? 1 : 0);
    perEnvironment.behindState.set({ environment }, status.behind.state);
    perEnvironment.behindStandby.set({ environment }, status.behind.standby);
    const { creates, updates, deletes, estimatedSeconds } = status.queue;
    perEnvironment.queue.set({ environment }, creates + updates + deletes);
    perEnvironment.seconds.set({ environment }, estimatedSeconds);
    for (const [severity, count] of Object.entries(status.gaps))
      perEnvironment.gaps.set({ environment, severity }, count);
    for (const [side, count] of Object.entries(status.servers))
      perEnvironment.servers.set({ environment, side }, count);
  }
  return registry.metrics();
}
