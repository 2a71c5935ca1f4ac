/** The API over a control plane that answers the same each time and counts what would change something. For tests alone. */
import type { FastifyInstance } from "fastify";
import type { ApiToken } from "#api/api-auth.ts";
import { buildApi } from "#api/api-server.ts";
import { OperationalError } from "#kernel/errors.ts";
import { silentLog } from "#kernel/log.ts";
import { Secret } from "#kernel/secret.ts";
import type { Notice } from "#model/notice.ts";
import type { ControlPlane, EnvironmentStatus, RunRequest, RunView } from "#takeover/control.ts";

export const operatorToken = "operator-0123456789abcdef";
export const witnessToken = "witness-0123456789abcdef";

export const tokens: readonly ApiToken[] = [
  { caller: { role: "operator", name: "operator" }, token: new Secret(operatorToken) },
  { caller: { role: "witness", name: "north", environment: "shop" }, token: new Secret(witnessToken) },
];

export interface ApiFixture {
  readonly app: FastifyInstance;
  readonly started: RunRequest[];
  readonly posted: Notice[];
  /** Consistencies of the points that were asked for. */
  readonly created: string[];
  /** Long polls that wait, and those that were told that their client has gone. */
  readonly waiting: { now: number; gone: number };
  /** Thrown by the next status. */
  failure: unknown;
}

export async function openApiFixture(): Promise<ApiFixture> {
  const started: RunRequest[] = [];
  const posted: Notice[] = [];
  const created: string[] = [];
  const waiting = { now: 0, gone: 0 };
  const holder: { failure: unknown } = { failure: undefined };
  const controlPlane: ControlPlane = {
    environments: () => ["shop"],
    status: (environment) => {
      if (holder.failure !== undefined) return Promise.reject(holder.failure);
      return known(environment, { id: environment } as EnvironmentStatus);
    },
    resources: (environment) => known(environment, []),
    journal: (environment) => known(environment, []),
    pairings: (environment) => known(environment, []),
    gaps: (environment) => known(environment, []),
    points: (environment) => known(environment, { group: null, points: [] }),
    pointEvidence: (environment) => known(environment, { at: 1, good: true, summary: "", servers: [] }),
    createPoint: async (environment, consistency) => {
      const point = await known(environment, { id: "point-1", consistency } as Awaited<
        ReturnType<ControlPlane["createPoint"]>
      >);
      created.push(consistency);
      return point;
    },
    startRun: async (request) => {
      const run = await known(request.environment, { id: "failover-1" } as RunView);
      started.push(request);
      return run;
    },
    cancelRun: (id, by) =>
      id === "failover-1"
        ? Promise.resolve({ id, trigger: by } as RunView)
        : Promise.reject(new OperationalError("not_found", `there is no run "${id}"`)),
    run: (id) =>
      id === "failover-1"
        ? Promise.resolve({ id } as RunView)
        : Promise.reject(new OperationalError("not_found", `there is no run "${id}"`)),
    runs: () => Promise.resolve([]),
    events: (environment) => known(environment, []),
    eventsAfter: (environment, _after, waitMs, signal) => {
      waiting.now += 1;
      return new Promise((resolve) => {
        const end = (): void => {
          clearTimeout(timer);
          waiting.now -= 1;
          resolve([]);
        };
        const timer = setTimeout(end, waitMs);
        signal.addEventListener("abort", () => {
          waiting.gone += 1;
          end();
        });
      }).then(() => known(environment, []));
    },
    postNotices: (notices) => {
      posted.push(...notices);
      return Promise.resolve();
    },
  };
  const app = await buildApi({
    controlPlane,
    tokens,
    probesOf: () => [],
    metrics: () => Promise.resolve("understudy_up 1\n"),
    version: "0.0.0",
    log: silentLog,
  });
  return {
    app,
    started,
    posted,
    created,
    waiting,
    get failure() {
      return holder.failure;
    },
    set failure(error) {
      holder.failure = error;
    },
  };
}

function known<T>(environment: string, answer: T): Promise<T> {
  return environment === "shop"
    ? Promise.resolve(answer)
    : Promise.reject(
        new OperationalError(
          "not_found",
          `there is no environment "${environment}"; the environments are: shop`,
        ),
      );
}
