// Other people's clients against our server.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { suite, test } from "node:test";
import { assertSameBytes } from "#kernel/same-bytes.fixture.ts";
import { OperationalError } from "#kernel/errors.ts";
import { type ExportProvider, singleExport } from "#nbd/export-provider.ts";
import { openFileDevice } from "#nbd/file-device.ts";
import { MemoryDevice } from "#nbd/memory-device.ts";
import { openOverlayDevice } from "#nbd/overlay-device.ts";
import { needs } from "../traffic/peer-process.ts";
import {
  debian,
  makeCertificates,
  makePsk,
  patternedDisk,
  runClient,
  serveOn,
  succeed,
  workFolder,
} from "./nbd-peers.ts";

const sizeBytes = 8 * 1024 * 1024;

async function memoryDisk(content = patternedDisk(sizeBytes)): Promise<MemoryDevice> {
  const device = new MemoryDevice({ sizeBytes });
  const piece = 65_536;
  for (let at = 0; at < content.length; at += piece) {
    const part = content.subarray(at, at + piece);
    if (part.some((byte) => byte !== 0)) await device.write(at, part);
  }
  return device;
}

const memoryExport = (device: MemoryDevice) =>
  singleExport("disk", device, { cheapExtents: true, fastZero: true });

suite("clients of others on our server", { concurrency: 1, ...needs(debian) }, () => {
  test("nbdinfo: facts, list, map, and a name that is not there", async () => {
    using folder = workFolder();
    const provider = singleExport("disk", await memoryDisk(), { description: "a test disk" });
    await using server = await serveOn(folder.file("s"), provider);
    assert.equal(statSync(folder.file("s")).mode & 0o777, 0o600);
    const info = JSON.parse(await succeed("nbdinfo", "--json", server.uri));
    const facts = info.exports[0];
    assert.equal(info["structured"], true);
    assert.deepEqual(
      [
        facts["export-name"],
        facts["export-size"],
        facts["description"],
        facts["is_read_only"],
        facts["can_multi_conn"],
      ],
      ["disk", sizeBytes, "a test disk", false, true],
    );
    for (const able of [
      "can_cache",
      "can_df",
      "can_fast_zero",
      "can_flush",
      "can_fua",
      "can_trim",
      "can_zero",
    ])
      assert.equal(facts[able], true, able);
    const list = await succeed("nbdinfo", "--list", "--json", server.uri);
    assert.deepEqual(
      JSON.parse(list).exports.map((entry: { "export-name": string }) => entry["export-name"]),
      ["disk"],
    );
    const map = JSON.parse(await succeed("nbdinfo", "--map", "--json", server.uri)) as {
      offset: number;
      length: number;
      type: number;
    }[];
    assert.deepEqual(
      map.slice(0, 3).map(({ offset, length, type }) => [offset, length, type]),
      [
        [0, 262_144, 0],
        [262_144, 262_144, 3],
        [524_288, 524_288, 0],
      ],
    );
    const wrong = await runClient("nbdinfo", server.uri.replace("/disk", "/other"));
    assert.notEqual(wrong.code, 0);
    assert.match(wrong.errors, /No such file or directory/);
  });

  test("nbdcopy: in and out over four connections, holes stay holes", async () => {
    using folder = workFolder();
    const content = patternedDisk(sizeBytes);
    writeFileSync(folder.file("in"), content);
    const device = new MemoryDevice({ sizeBytes });
    await using server = await serveOn(folder.file("s"), memoryExport(device));
    await succeed("nbdcopy", "--connections=4", "--flush", folder.file("in"), server.uri);
    assertSameBytes(await device.read(0, sizeBytes), content);
    // 11 of the 32 stretches of 256 KiB are empty, and the copy did not fill them.
    assert.equal(device.heldBytes, sizeBytes - 11 * 262_144);
    await succeed("nbdcopy", "--connections=4", server.uri, folder.file("out"));
    assert.ok(readFileSync(folder.file("out")).equals(content));
  });

  test("qemu-img: convert in and out, compare, map; qemu-io: every kind of write", async () => {
    using folder = workFolder();
    const content = patternedDisk(sizeBytes);
    writeFileSync(folder.file("in"), content);
    await succeed(
      "qemu-img",
      "convert",
      "-f",
      "raw",
      "-O",
      "qcow2",
      folder.file("in"),
      folder.file("in.qcow2"),
    );
    const device = new MemoryDevice({ sizeBytes });
    await using server = await serveOn(folder.file("s"), memoryExport(device));
    // As a mirror job writes: eight requests at once, in any order.
    await succeed(
      "qemu-img",
      "convert",
      "-n",
      "-W",
      "-m",
      "8",
      "-f",
      "qcow2",
      "-O",
      "raw",
      folder.file("in.qcow2"),
      server.uri,
    );
    assertSameBytes(await device.read(0, sizeBytes), content);
    await succeed("qemu-img", "compare", "-f", "raw", "-F", "qcow2", server.uri, folder.file("in.qcow2"));
    await succeed("qemu-img", "convert", "-f", "raw", "-O", "raw", server.uri, folder.file("out"));
    assert.ok(readFileSync(folder.file("out")).equals(content));
    const map = JSON.parse(await succeed("qemu-img", "map", "--output=json", "-f", "raw", server.uri)) as {
      zero: boolean;
    }[];
    assert.equal(map.filter(({ zero }) => zero).length, 11);
    const commands = [
      "write -P 5 1000 70000",
      "read -P 5 1000 70000",
      "write -f -P 6 1M 4k",
      "write -z 0 1M",
      "read -P 0 0 1M",
    ];
    commands.push(
      "write -z -u 2M 64k",
      "discard 3M 1M",
      "flush",
      "read -P 0 2M 64k",
      "aio_write -P 7 0 32M",
      "aio_flush",
    );
    const io = await succeed(
      "qemu-io",
      "-f",
      "raw",
      ...commands.slice(0, 9).flatMap((command) => ["-c", command]),
      server.uri,
    );
    assert.doesNotMatch(io, /fail|error|mismatch/i);
  });

  test("fio: writes and reads of its nbd engine, verified by its own checksums", async () => {
    using folder = workFolder();
    const device = await openFileDevice({
      path: folder.file("disk"),
      writable: true,
      createBytes: sizeBytes,
    });
    await using server = await serveOn(folder.file("s"), singleExport("disk", device));
    const job = [
      "--name=job",
      "--ioengine=nbd",
      `--uri=${server.uri}`,
      "--rw=randwrite",
      "--bsrange=512-64k",
    ];
    const output = await succeed(
      "fio",
      ...job,
      "--bs_unaligned",
      `--size=${sizeBytes}`,
      "--iodepth=16",
      "--verify=crc32c",
      "--verify_fatal=1",
      "--verify_state_save=0",
      "--do_verify=1",
      "--fsync=64",
      "--output-format=json",
    );
    const result = JSON.parse(output.slice(output.indexOf("{"))).jobs[0];
    assert.equal(result.error, 0);
    // The last block of random size may not fit any more.
    for (const way of ["read", "write"] as const)
      assert.ok(result[way].io_bytes > sizeBytes - 65_536, `${way} ${result[way].io_bytes}`);
    await device[Symbol.asyncDispose]();
  });

  test("nbdkit's nbd plugin and qemu-nbd pass our export on", async () => {
    using folder = workFolder();
    const content = patternedDisk(sizeBytes);
    await using server = await serveOn(folder.file("s"), memoryExport(await memoryDisk(content)));
    const through = 'nbdcopy "$uri" -';
    const { code, output } = await runClient(
      "nbdkit",
      "-U",
      "-",
      "nbd",
      `uri=${server.uri}`,
      "--run",
      `${through} | sha256sum`,
    );
    assert.equal(code, 0);
    const sum = createHash("sha256").update(content).digest("hex");
    assert.match(output, new RegExp(sum));
    const socket = folder.file("q");
    const qemu = `qemu-nbd -f raw -k ${socket} '${server.uri}' & for i in $(seq 200); do test -S ${socket} && break; sleep 0.05; done; nbdcopy 'nbd+unix:///?socket=${socket}' - | sha256sum; wait`;
    assert.match(await succeed("sh", "-c", qemu), new RegExp(sum));
  });

  test("a dirty context in QEMU's form, read by nbdinfo and qemu-img", async () => {
    using folder = workFolder();
    const base = await memoryDisk();
    await using overlay = await openOverlayDevice({ folder: folder.file("overlay"), base, baseId: "b" });
    const dirtyContexts = ["understudy:dirty", "qemu:dirty-bitmap:changed"].map((name) => ({
      name,
      extents: (offset: number, length: number) => overlay.changedExtents(offset, length),
    }));
    await using server = await serveOn(
      folder.file("s"),
      singleExport("disk", overlay, { dirtyContexts, cheapExtents: true }),
    );
    await succeed("qemu-io", "-f", "raw", "-c", "write -P 9 1M 100k", "-c", "flush", server.uri);
    for (const { name } of dirtyContexts) {
      const map = JSON.parse(await succeed("nbdinfo", `--map=${name}`, "--json", server.uri)) as {
        offset: number;
        length: number;
        type: number;
      }[];
      assert.deepEqual(
        map.map(({ offset, length, type }) => [offset, length, type]),
        [
          [0, 1_048_576, 0],
          [1_048_576, 102_400, 1],
          [1_150_976, sizeBytes - 1_150_976, 0],
        ],
      );
    }
    const options = `driver=nbd,server.type=unix,server.path=${folder.file("s")},export=disk,x-dirty-bitmap=qemu:dirty-bitmap:changed`;
    const map = JSON.parse(await succeed("qemu-img", "map", "--output=json", "--image-opts", options)) as {
      start: number;
      length: number;
      data: boolean;
    }[];
    // QEMU shows what is dirty as not allocated: https://www.qemu.org/docs/master/interop/bitmaps.html
    assert.deepEqual(
      map.filter(({ data }) => !data).map(({ start, length }) => [start, length]),
      [[1_048_576, 102_400]],
    );
  });

  test("TLS with certificates: clients of the CA get in, others do not", async () => {
    using folder = workFolder();
    const pki = await makeCertificates(folder.path);
    const device = await memoryDisk();
    const tls = { mode: "required", certificate: pki.server, clientCa: pki.ca } as const;
    await using server = await serveOn(folder.file("s"), memoryExport(device), { tls });
    const withFolder = `${server.uri}&tls-certificates=${folder.path}&tls-hostname=localhost`;
    assert.match(await succeed("nbdinfo", withFolder), /newstyle-fixed with TLS/);
    await succeed("nbdcopy", withFolder, folder.file("out"));
    assert.ok(readFileSync(folder.file("out")).equals(await device.read(0, sizeBytes)));
    const object = `tls-creds-x509,id=t,endpoint=client,dir=${folder.path}`;
    const image = `driver=nbd,server.type=unix,server.path=${folder.file("s")},export=disk,tls-creds=t,tls-hostname=localhost`;
    await succeed(
      "qemu-io",
      "--object",
      object,
      "--image-opts",
      image,
      "-c",
      "write -P 3 4k 8k",
      "-c",
      "read -P 3 4k 8k",
    );
    assert.equal((await device.read(4_096, 1))[0], 3);
    const inTheClear = await runClient("nbdinfo", server.uri.replace("nbds", "nbd"));
    assert.notEqual(inTheClear.code, 0);
    const bare = workFolder();
    writeFileSync(bare.file("ca-cert.pem"), pki.ca);
    for (const [name, value] of [
      ["cert", pki.stranger.cert],
      ["key", pki.stranger.key.reveal()],
    ] as const)
      writeFileSync(bare.file(`client-${name}.pem`), value);
    const stranger = await runClient(
      "nbdinfo",
      `${server.uri}&tls-certificates=${bare.path}&tls-hostname=localhost`,
    );
    assert.notEqual(stranger.code, 0);
    bare[Symbol.dispose]();
  });

  test("TLS with a pre-shared key, on TCP; in the clear there nobody writes", async () => {
    using folder = workFolder();
    const psk = makePsk(folder.path);
    const device = await memoryDisk();
    const tls = {
      mode: "optional",
      pskOf: (identity: string) => (identity === psk.identity ? psk.key : undefined),
    } as const;
    const listen = { kind: "tcp", host: "127.0.0.1", port: 0 } as const;
    await using server = await serveOn("", memoryExport(device), { listen, tls, unauthenticated: "read" });
    assert.ok(server.address.kind === "tcp");
    const { port } = server.address;
    const secure = `nbds://alice@127.0.0.1:${port}/disk?tls-psk-file=${psk.file}`;
    assert.match(await succeed("nbdinfo", secure), /with TLS/);
    writeFileSync(folder.file("in"), Buffer.alloc(sizeBytes, 8));
    await succeed("nbdcopy", folder.file("in"), secure);
    assertSameBytes(await device.read(0, sizeBytes), Buffer.alloc(sizeBytes, 8));
    assert.match(await succeed("nbdinfo", `nbd://127.0.0.1:${port}/disk`), /is_read_only: true/);
    const write = await runClient("qemu-io", "-f", "raw", "-c", "write 0 4k", `nbd://127.0.0.1:${port}/disk`);
    assert.match(write.output + write.errors, /read-only|Permission|not permitted/i);
    writeFileSync(folder.file("mallory.psk"), `mallory:${"42".repeat(32)}\nalice:${"42".repeat(32)}\n`);
    for (const user of ["mallory", "alice"]) {
      const uri = secure.replace("alice", user).replace("keys.psk", "mallory.psk");
      assert.match((await runClient("nbdinfo", uri)).errors, /handshake/);
    }
    const object = `tls-creds-psk,id=t,endpoint=client,dir=${folder.path},username=alice`;
    const image = `driver=nbd,server.type=inet,server.host=127.0.0.1,server.port=${port},export=disk,tls-creds=t`;
    await succeed("qemu-io", "--object", object, "--image-opts", image, "-c", "read -P 8 0 8M");
  });

  test("failures of the disk reach the client as what they are", async () => {
    using folder = workFolder();
    const full = new MemoryDevice({ sizeBytes, maxHeldBytes: 65_536 });
    await using server = await serveOn(folder.file("s"), memoryExport(full));
    const write = await runClient("qemu-io", "-f", "raw", "-c", "write -P 1 0 1M", server.uri);
    assert.match(write.output + write.errors, /No space left on device/);
    const broken: ExportProvider = singleExport("disk", {
      sizeBytes,
      read: () => Promise.reject(new OperationalError("vault.damaged", "block 7 is damaged")),
      extents: async (offset, length) => [{ offset, length, kind: "data" }],
      [Symbol.asyncDispose]: async () => {},
    });
    await using other = await serveOn(folder.file("t"), broken);
    const read = await runClient("qemu-io", "-r", "-f", "raw", "-c", "read 0 4k", other.uri);
    assert.match(read.output + read.errors, /Input\/output error/);
  });
});
