import { requireOperator } from "#api/api-auth.ts";
import type { TypedApp } from "#api/api-routes.ts";
import { environmentParams, eventsQuery, pageQuery } from "#api/api-schemas.ts";
import type { ControlPlane } from "#takeover/control.ts";

export function registerEnvironmentRoutes(app: TypedApp, controlPlane: ControlPlane): void {
  app.get("/v1/environments", { schema: { summary: "Every environment's status" } }, async (request) => {
    requireOperator(request.caller);
    const environments = await Promise.all(controlPlane.environments().map((id) => controlPlane.status(id)));
    return { environments };
  });

  const params = environmentParams;
  app.get(
    "/v1/environments/:environment",
    { schema: { summary: "One environment: where it stands and what a takeover would do", params } },
    (request) => {
      requireOperator(request.caller);
      return controlPlane.status(request.params.environment);
    },
  );

  app.get(
    "/v1/environments/:environment/resources",
    { schema: { summary: "What the environment is made of", params } },
    async (request) => {
      requireOperator(request.caller);
      return { resources: await controlPlane.resources(request.params.environment) };
    },
  );

  app.get(
    "/v1/environments/:environment/journal",
    { schema: { summary: "The latest intercepted commands, newest last", params, querystring: pageQuery } },
    async (request) => {
      requireOperator(request.caller);
      const { limit, before } = request.query;
      return { entries: await controlPlane.journal(request.params.environment, limit, before) };
    },
  );

  app.get(
    "/v1/environments/:environment/pairings",
    { schema: { summary: "Which standby resource stands for which active one", params } },
    async (request) => {
      requireOperator(request.caller);
      return { pairings: await controlPlane.pairings(request.params.environment) };
    },
  );

  app.get(
    "/v1/environments/:environment/points",
    {
      schema: { summary: "What can be recovered to: the window of moments, and the recovery points", params },
    },
    (request) => {
      requireOperator(request.caller);
      return controlPlane.points(request.params.environment, AbortSignal.timeout(10_000));
    },
  );

  app.get(
    "/v1/environments/:environment/gaps",
    { schema: { summary: "What is not protected, and why", params } },
    async (request) => {
      requireOperator(request.caller);
      return { gaps: await controlPlane.gaps(request.params.environment) };
    },
  );

  app.get(
    "/v1/environments/:environment/events",
    { schema: { summary: "The timeline; waits for news if asked to", params, querystring: eventsQuery } },
    async (request, reply) => {
      requireOperator(request.caller);
      const { after, limit, waitMs } = request.query;
      const { environment } = request.params;
      if (waitMs === 0) return { events: await controlPlane.events(environment, after, limit) };
      const gone = new AbortController();
      reply.raw.once("close", () => gone.abort());
      const events = await controlPlane.eventsAfter(environment, after, waitMs, gone.signal);
      return { events: events.slice(0, limit) };
    },
  );
}
