/** The whole script with one client, on both ways at once, phase by phase: its answers, its records, its cloud. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { Client, Endpoint } from "./client.ts";
import { type ResourceKind, resourceKinds } from "#model/resource.ts";
import { assertFoldIsCloud, assertRecorded } from "./journal-agrees.ts";
import {
  allCodes,
  conflicts,
  provoke,
  provokeWithMore,
  provokeWithoutDefaults,
  quotasReached,
  unknownIds,
  wrongValues,
} from "./known-errors.ts";
import { buildShop, clearShop } from "./shop-life.ts";
import { assertSame, Session } from "./transcript.ts";
import { startTwoWays } from "./two-ways.ts";

/** Only a cloud whose servers are guests runs out of room for them: test/e2e/devcloud-qemu provokes it. */
const onlyWithGuests: ReadonlySet<string> = new Set(["InsufficientInstanceCapacity"]);

const noQuotas = {
  servers: 2000,
  vcpus: 8000,
  networks: 50,
  subnetsPerNetwork: 200,
  gateways: 50,
  groups: 2500,
  rulesPerGroup: 60,
  groupsPerPort: 5,
  keyPairs: 5000,
  volumes: 5000,
  addresses: 200,
  tagsPerResource: 50,
};

/** `open` with one attempt a call: repetitions have a script of their own. */
export async function tellsTheSame(t: TestContext, open: (endpoint: Endpoint) => Client): Promise<void> {
  await using ways = await startTwoWays();
  const direct = new Session(open(ways.direct));
  const through = new Session(open(ways.through));
  t.after(() => Promise.all([direct.client.close(), through.client.close()]));
  const both = async <T>(act: (session: Session) => Promise<T>): Promise<[T, T]> => {
    const results = await Promise.all([act(direct), act(through)]);
    assertSame(direct.lines, through.lines);
    return results;
  };
  const checked = async (): Promise<ReadonlySet<ResourceKind>> => {
    const entries = await ways.journal();
    assertRecorded(through.lines, entries);
    return assertFoldIsCloud(ways, entries, t.signal);
  };

  const shops = await both(buildShop);
  const [shop, shopThrough] = shops;
  const own = (session: Session): typeof shop => (session === direct ? shop : shopThrough);
  assert.deepEqual([...(await checked())].toSorted(), [...resourceKinds].toSorted(), "each kind is there");

  await both(async (session) => {
    await provoke(session, unknownIds());
    await provoke(session, wrongValues(own(session)));
    await provoke(session, conflicts(own(session)));
    await provokeWithMore(session, own(session));
  });
  await ways.admin("PUT", "quotas", quotasReached(shop).quotas);
  await both((session) => provoke(session, quotasReached(own(session)).beyond));
  await ways.admin("PUT", "quotas", { ...noQuotas, vcpus: 1 });
  await both((session) => provoke(session, quotasReached(own(session)).beyondVcpus));
  await ways.admin("PUT", "quotas", noQuotas);
  await both(async (session) => {
    // This cloud has no such services, and says so: the gateway adds nothing of its own.
    const loadBalancer = { Name: "front", Subnets: [own(session).subnet] };
    await session.refused("SignatureDoesNotMatch", "DescribeLoadBalancers", {}, "elbv2");
    await session.refused("SignatureDoesNotMatch", "CreateLoadBalancer", loadBalancer, "elbv2");
    await session.refused("SignatureDoesNotMatch", "DescribeAutoScalingGroups", {}, "autoscaling");
    await session.refused(
      "SignatureDoesNotMatch",
      "DeleteAutoScalingGroup",
      { AutoScalingGroupName: "a" },
      "autoscaling",
    );
  });
  await ways.admin("PUT", "faults", [
    { operation: "DescribeVpcs", effect: "refuse", status: 503, count: 1 },
    { operation: "CreateVpc", effect: "refuse", status: 503, code: "RequestLimitExceeded", count: 1 },
    { operation: "DescribeVpcs", effect: "refuse", status: 500, count: 1 },
  ]);
  await both(async (session) => {
    await session.refused("Unavailable", "DescribeVpcs", {});
    await session.refused("RequestLimitExceeded", "CreateVpc", { CidrBlock: "10.8.0.0/16" });
    await session.refused("InternalError", "DescribeVpcs", {});
  });
  await checked();

  await both((session) => clearShop(session, own(session)));
  assert.equal((await checked()).size, 0, "all that was made is gone, from the record too");
  await both(provokeWithoutDefaults);
  assertRecorded(through.lines, await ways.journal());

  const provoked = new Set(through.lines.flatMap(({ answered }) => answered.code ?? []));
  const missed = [...allCodes()].filter((code) => !provoked.has(code) && !onlyWithGuests.has(code));
  assert.deepEqual(missed.toSorted(), []);
}
