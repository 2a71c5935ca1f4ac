import assert from "node:assert/strict";
import { mkdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { saveTemplate } from "#hypervisor/template.ts";
import { get, skip, Stage, webGuest } from "./stage.ts";
import { freePort } from "../../../demo/free-ports.ts";

test(
  "a monitor that closes, an attendant that comes in the middle, a disk that is full when the guest turns itself off",
  { skip, timeout: 180_000 },
  async (t) => {
    await using stage = new Stage();
    let attached = 0;
    let come = (): void => {};
    const host = await stage.openHost((step) => {
      if (step.startsWith("before writing process")) come();
    });
    const port = await freePort();
    const machine = await host.create(webGuest("web", port, { guestAgent: true }));
    // While the new QEMU's identity is being written down.
    come = () => {
      if (!machine.isOn) return;
      come = () => {};
      machine.attend({
        attached: () => void (attached += 1),
        detached: () => Promise.resolve(),
      });
    };
    await machine.start(t.signal);
    assert.equal(attached, 1, "told once of the QEMU that was being taken");

    // The monitor closes and QEMU lives: it is taken over again, and its guest has not noticed.
    const { process: before } = machine.record;
    await machine.qmp[Symbol.asyncDispose]();
    while (!machine.isOn) await new Promise((resolve) => setTimeout(resolve, 20));
    await machine.exclusive(() => Promise.resolve());
    assert.deepEqual(machine.record.process, before);
    assert.equal(machine.state, "running");
    assert.equal(attached, 2);
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "1");
    assert.deepEqual(
      stage.notices.filter(({ code }) => code === "machine.died"),
      [],
    );

    // A guest that was paused stays so: nothing is kept of it that would set it running.
    await machine.pause(t.signal);
    const template = saveTemplate(machine, join(stage.folder, "template"), t.signal);
    await assert.rejects(template, { code: "machine.refused", message: /paused/ });
    assert.equal(machine.state, "paused");
    await machine.resume(t.signal);

    // No record can be written when the guest turns itself off: it is told, and made good when there is room again.
    const blocker = join(machine.folder, "machine.json.new");
    mkdirSync(blocker);
    await machine.agent.exec("/bin/sh", ["-c", "poweroff -f"], t.signal).catch(() => {});
    await stage.notice("machine.not_recorded");
    assert.equal(machine.record.power, "on");
    rmdirSync(blocker);
    await stage.notice("machine.turned_off");
    assert.equal(machine.record.power, "off");
    assert.equal(machine.state, "off");
  },
);
