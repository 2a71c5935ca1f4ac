import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { isOperational } from "#kernel/errors.ts";
import { addressOf } from "#traffic/traffic-switch.ts";
import { decodeServersState, planSlots, type Slot } from "./haproxy-plan.ts";

const place = fc.record({ host: fc.constant("10.0.0.1"), port: fc.integer({ min: 1, max: 6 }) });
const slots: fc.Arbitrary<Slot[]> = fc
  .array(fc.tuple(place, fc.boolean()), { maxLength: 6 })
  .map((all) => all.map(([at, ready], index) => ({ name: `s${index}`, ...at, weight: 1, ready })));
const backends = fc
  .uniqueArray(place, { selector: addressOf, minLength: 1, maxLength: 5 })
  .map((all) => all.map((at, index) => ({ id: `b${index}`, ...at })));

void describe("the plan of HAProxy's slots", () => {
  void it("leaves exactly the target in service, moves nothing that is already right, and uses free slots first", () => {
    fc.assert(
      fc.property(slots, backends, (now, target) => {
        if (target.length > now.length) {
          assert.throws(
            () => planSlots(now, target, "web"),
            (error) =>
              isOperational(error, "traffic.refused") &&
              error.message.includes(`${target.length} are needed`),
          );
          return;
        }
        const plan = planSlots(now, target, "web");
        const after = new Map(now.map((slot) => [slot.name, { ...slot }]));
        for (const { slot, backend } of [...plan.assign, ...plan.keep])
          after.set(slot, { name: slot, host: backend.host, port: backend.port, weight: 1, ready: true });
        for (const slot of plan.remove) assert.ok(now.find((one) => one.name === slot)?.ready);
        const removed = new Set(plan.remove);
        const serving = [...after.values()]
          .filter((slot) => slot.ready && !removed.has(slot.name))
          .map(addressOf);
        assert.deepEqual(serving.sort(), target.map(addressOf).sort());
        const used = [...plan.assign, ...plan.keep].map((one) => one.slot);
        assert.equal(new Set(used).size, used.length);
        const readyOf = (name: string): boolean => now.find((one) => one.name === name)?.ready ?? false;
        const order = plan.assign.map((one) => Number(readyOf(one.slot)));
        assert.deepEqual(
          order,
          order.toSorted((one, other) => one - other),
        );
      }),
    );
  });

  void it("reads `show servers state` by its column names and refuses anything else", () => {
    const answer = [
      "1",
      "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight x srv_port",
      "3 web 1 slot1 10.0.0.1 2 0 7 1 - 80",
      "3 web 2 slot2 10.0.0.2 0 5 1 1 - 81",
      "",
    ].join("\n");
    assert.deepEqual(decodeServersState(answer, "web"), [
      { name: "slot1", host: "10.0.0.1", port: 80, weight: 7, ready: true },
      { name: "slot2", host: "10.0.0.2", port: 81, weight: 1, ready: false },
    ]);
    assert.throws(
      () => decodeServersState("Can't find backend.", "web"),
      (error) => isOperational(error, "traffic.refused"),
    );
  });
});
