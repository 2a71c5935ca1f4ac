import { addressOf } from "#traffic/traffic-switch.ts";
import { trafficSwitchConformance } from "#traffic/traffic-switch.conformance.ts";
import { ask, deadBackend, openForwarder, openOrigin } from "./forwarder.fixture.ts";

trafficSwitchConformance("forwarder", async () => {
  const stack = new AsyncDisposableStack();
  const origins = await Promise.all(["a", "b", "c"].map((id) => openOrigin(id)));
  for (const origin of origins) stack.use(origin);
  const forwarder = stack.use(await openForwarder());
  const [a, b, c] = origins.map((origin) => origin.backend);
  if (a === undefined || b === undefined || c === undefined) throw new Error("three origins were opened");
  return {
    route: forwarder.switchOf("web"),
    backends: [a, b, c, await deadBackend("d")],
    async servedBy() {
      const seen = new Set<string>();
      for (let round = 0; round < 12; round += 1) seen.add((await ask(forwarder.address)).body);
      return origins
        .filter((origin) => seen.has(origin.backend.id))
        .map((origin) => addressOf(origin.backend))
        .sort();
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
});
