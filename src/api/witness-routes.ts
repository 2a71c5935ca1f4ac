import type { Caller } from "#api/api-auth.ts";
import type { TypedApp } from "#api/api-routes.ts";
import { noticesBody } from "#api/api-schemas.ts";
import type { Probe } from "#health/probe.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { ControlPlane } from "#takeover/control.ts";

function requireWitness(caller: Caller): Caller & { role: "witness" } {
  if (caller.role !== "witness") {
    throw new OperationalError(
      "auth.forbidden",
      "only a witness reports; use the token that `witnesses` names for it",
    );
  }
  return caller;
}

export function registerWitnessRoutes(
  app: TypedApp,
  controlPlane: ControlPlane,
  probesOf: (environment: string) => readonly Probe[],
): void {
  app.get("/v1/witness/probes", { schema: { summary: "What this witness is to look at" } }, (request) => {
    const { environment, name } = requireWitness(request.caller);
    return { environment, witness: name, probes: probesOf(environment) };
  });

  app.post(
    "/v1/witness/notices",
    { schema: { summary: "What this witness sees", body: noticesBody } },
    async (request, reply) => {
      const { environment, name } = requireWitness(request.caller);
      await controlPlane.postNotices(
        request.body.notices.map((notice) => ({ ...notice, environment, witness: name })),
      );
      return reply.status(204).send();
    },
  );
}
