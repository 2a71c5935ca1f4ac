import { requireOperator } from "#api/api-auth.ts";
import type { TypedApp } from "#api/api-routes.ts";
import { environmentParams, runParams, runsQuery, startRunBody } from "#api/api-schemas.ts";
import type { ControlPlane } from "#takeover/control.ts";

export function registerRunRoutes(app: TypedApp, controlPlane: ControlPlane): void {
  app.post(
    "/v1/environments/:environment/runs",
    {
      schema: {
        summary: "Begin a failover, failback, migration, swap, drill or restore",
        params: environmentParams,
        body: startRunBody,
      },
    },
    async (request, reply) => {
      const caller = requireOperator(request.caller);
      const run = await controlPlane.startRun({
        environment: request.params.environment,
        kind: request.body.kind,
        by: caller.name,
        reason: request.body.reason,
        force: request.body.force,
        ...(request.body.at === undefined ? {} : { at: request.body.at }),
        ...(request.body.sequence === undefined ? {} : { sequence: request.body.sequence }),
        ...(request.body.volumes === undefined ? {} : { volumes: request.body.volumes }),
        ...(request.body.servers === undefined ? {} : { servers: request.body.servers }),
        ...(request.body.live === undefined ? {} : { live: request.body.live }),
        ...(request.body.asItIs === undefined ? {} : { asItIs: request.body.asItIs }),
        ...(request.body.holdMs === undefined ? {} : { holdMs: request.body.holdMs }),
      });
      return reply.status(202).send(run);
    },
  );

  app.get(
    "/v1/runs",
    { schema: { summary: "The latest runs, newest first", querystring: runsQuery } },
    async (request) => {
      requireOperator(request.caller);
      const { environment, limit } = request.query;
      // Its status is asked for its error alone: the ledger would answer an unknown name with an empty list.
      if (environment !== undefined) await controlPlane.status(environment);
      return { runs: await controlPlane.runs(environment, limit) };
    },
  );

  app.post(
    "/v1/runs/:run/cancel",
    {
      schema: {
        summary: "End a drill, restore, failback or migration on its way, undoing it",
        params: runParams,
      },
    },
    async (request, reply) => {
      const caller = requireOperator(request.caller);
      return reply.status(202).send(await controlPlane.cancelRun(request.params.run, caller.name));
    },
  );

  app.get(
    "/v1/runs/:run",
    { schema: { summary: "One run with its steps", params: runParams } },
    (request) => {
      requireOperator(request.caller);
      return controlPlane.run(request.params.run);
    },
  );
}
