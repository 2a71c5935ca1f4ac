// The driver `hypervisor` against a host agent with real guests: the whole contract.
import { after, test } from "node:test";
import { conformanceTests } from "#testing/conformance-tests.ts";
import { skip } from "../devcloud-qemu/stage.ts";
import { HostUnderTest } from "./host-under-test.ts";

if (skip !== false) void test("hypervisor: the contract", { skip }, () => {});
else {
  const host = await HostUnderTest.open({ addresses: "127.62.0.0/24", pageSize: 3 });
  await host.start();
  after(() => host[Symbol.asyncDispose]());
  await conformanceTests({
    name: "hypervisor",
    cloud: {
      ...delegate(host),
      // What was broken for one server is whole again when that is gone.
      delete: async (kind, id, signal) => {
        await host.cloud.delete(kind, id, signal);
        if (kind === "server") await host.mendImage();
      },
    },
    harness: {
      pageSize: 3,
      failNextServer: async () => host.breakImage(),
    },
    limits: { waitMs: 90_000, pollMs: 50 },
  });
}

function delegate({ cloud }: HostUnderTest): HostUnderTest["cloud"] {
  return {
    facts: cloud.facts,
    identify: (signal) => cloud.identify(signal),
    catalogue: (signal) => cloud.catalogue(signal),
    create: (request, signal) => cloud.create(request, signal),
    get: (kind, id, signal) => cloud.get(kind, id, signal),
    list: (kind, filter, signal) => cloud.list(kind, filter, signal),
    update: (kind, id, set, signal) => cloud.update(kind, id, set, signal),
    setTags: (kind, id, set, remove, signal) => cloud.setTags(kind, id, set, remove, signal),
    delete: (kind, id, signal) => cloud.delete(kind, id, signal),
    close: () => cloud.close(),
  };
}
