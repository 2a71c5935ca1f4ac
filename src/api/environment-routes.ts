import { requireOperator } from "#api/api-auth.ts";
import type { TypedApp } from "#api/api-routes.ts";
import { createPointBody, environmentParams, eventsQuery, pageQuery, pointParams } from "#api/api-schemas.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import type { ControlPlane } from "#takeover/control.ts";

/** Its disks become points of the vault, which takes as long as what has changed since the last one. */
const createPointWithinMs = 50_000;

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

  app.post(
    "/v1/environments/:environment/points",
    {
      schema: {
        summary: "Take a recovery point now; file systems held still for it are let go before the answer",
        params,
        body: createPointBody,
      },
    },
    async (request, reply) => {
      requireOperator(request.caller);
      const { consistency } = request.body;
      const limit = AbortSignal.timeout(createPointWithinMs);
      try {
        const point = await controlPlane.createPoint(request.params.environment, consistency, limit);
        return await reply.status(201).send(point);
      } catch (error) {
        if (!limit.aborted || isOperational(error)) throw error;
        const late = `the point was not taken within ${createPointWithinMs / 1000} s: there is much to bring into the vault; points of the policy take as long as it needs`;
        throw new OperationalError("cloud.timeout", late, { outcome: "unknown", cause: error });
      }
    },
  );

  app.get(
    "/v1/environments/:environment/points/:point/evidence",
    {
      schema: {
        summary:
          "What was seen when a recovery point was booted and probed last: verdicts, consoles, screenshots",
        params: pointParams,
      },
    },
    (request) => {
      requireOperator(request.caller);
      const { environment, point } = request.params;
      return controlPlane.pointEvidence(environment, point, AbortSignal.timeout(10_000));
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
