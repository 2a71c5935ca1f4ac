import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { HostNotice } from "./host-notice.ts";
import type { MachineSpecInput } from "./machine-spec.ts";
import { openHost } from "./open-host.ts";

const spec = (id: string): MachineSpecInput => ({
  id,
  memoryMiB: 112,
  cpus: 1,
  boot: { kind: "kernel", kernelPath: "/kernel" },
});

/** A host's folder with the machine `web`, and the folder of its machines. */
async function hostWithMachine(t: TestContext): Promise<{ folder: string; machines: string }> {
  const folder = mkdtempSync(join(tmpdir(), "understudy-host-"));
  t.after(() => rmSync(folder, { recursive: true }));
  await using host = await openHost({ folder, accelerator: "tcg" });
  await host.create(spec("web"));
  return { folder, machines: join(folder, "machines") };
}

test("a machine whose record is lost or damaged keeps its disks, and the others are resumed", async (t) => {
  const { folder, machines } = await hostWithMachine(t);
  const damaged: [string, string | null][] = [
    ["cut", '{"format": 1, "spec"'],
    ["newer", '{"format": 2}'],
    ["null", "null"],
    ["lost", null],
  ];
  for (const [id, record] of damaged) {
    mkdirSync(join(machines, id));
    writeFileSync(join(machines, id, "disk-data.qcow2"), "the guest's data");
    if (record !== null) writeFileSync(join(machines, id, "machine.json"), record);
  }
  await using host = await openHost({ folder, accelerator: "tcg" });
  const notices: HostNotice[] = [];
  host.onNotice((notice) => notices.push(notice));
  await host.resumed;
  assert.deepEqual(
    host.list().map(({ id }) => id),
    ["web"],
  );
  for (const [id] of damaged) {
    const notice = notices.find(({ machine }) => machine === id);
    assert.equal(notice?.code, "machine.not_resumed", id);
    assert.match(notice.message, new RegExp(join(machines, id)));
    // Neither made anew over it nor taken away.
    await assert.rejects(host.create(spec(id)), /machine\.json/);
    await assert.rejects(host.destroy(id), /machine\.json/);
    assert.equal(readFileSync(join(machines, id, "disk-data.qcow2"), "utf8"), "the guest's data");
  }
});

test("what an agent left that was killed before the first record is removed", async (t) => {
  const { folder, machines } = await hostWithMachine(t);
  for (const id of ["empty", "unwritten"]) mkdirSync(join(machines, id));
  writeFileSync(join(machines, "unwritten", "machine.json.new"), '{"form');
  await using host = await openHost({ folder, accelerator: "tcg" });
  await host.resumed;
  for (const id of ["empty", "unwritten"]) assert.equal(existsSync(join(machines, id)), false);
  await host.destroy("web");
  assert.equal(existsSync(join(machines, "web")), false);
});
