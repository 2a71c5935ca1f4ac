/** Servers with no machine behind them: the state machine alone, for tests with thousands of servers. */
import type { Compute, ComputeStatus } from "#devcloud/core/compute.ts";

export function openNoCompute(): Compute {
  const started = new Set<string>();
  return {
    reachable: false,
    start: (server) => {
      started.add(server.id);
      return Promise.resolve();
    },
    stop: (id) => {
      started.delete(id);
      return Promise.resolve();
    },
    status: (id): ComputeStatus => (started.has(id) ? "running" : "absent"),
    console: () => Buffer.alloc(0),
    forget: () => Promise.resolve(),
    refresh: () => {},
    close: () => Promise.resolve(),
  };
}
