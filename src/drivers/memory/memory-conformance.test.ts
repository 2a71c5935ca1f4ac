import { systemClock } from "#kernel/clock.ts";
import { systemRandom } from "#kernel/random.ts";
import { conformanceTests } from "#testing/conformance-tests.ts";
import { createMemoryCloud } from "./memory-cloud.ts";

const cloud = createMemoryCloud({
  clock: systemClock,
  random: systemRandom,
  latencyMs: 2,
  readyMs: 5,
  pageSize: 5,
});

await conformanceTests({
  name: "memory",
  cloud,
  harness: {
    pageSize: 5,
    failNextServer: async () => cloud.inspect.failNextServer("No valid host was found"),
  },
});
