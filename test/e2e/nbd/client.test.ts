// Our client against other people's servers.
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { suite, test } from "node:test";
import { assertSameBytes } from "#kernel/same-bytes.fixture.ts";
import { type NbdClient, listNbdExports, openNbdClient } from "#nbd/nbd-client.ts";
import type { NbdClientOptions } from "#nbd/client-pool.ts";
import { loadClientTls } from "#nbd/load-client-tls.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";
import { needs, startPeer } from "../traffic/peer-process.ts";
import {
  debian,
  isListening,
  makeCertificates,
  makePsk,
  patternedDisk,
  ports,
  succeed,
  workFolder,
} from "./nbd-peers.ts";
import { freePorts } from "../../../demo/free-ports.ts";

const sizeBytes = 8 * 1024 * 1024;

function toUnix(path: string, options: Partial<NbdClientOptions> = {}): NbdClientOptions {
  return { address: { kind: "unix", path }, exportName: "", ...ports, ...options };
}

const listening = (path: string) => (): Promise<boolean> => isListening(path);

/** Every kind of request, at places that are on no boundary, against a buffer that is what the disk should be. */
async function exercise(client: NbdClient, shadow: Buffer): Promise<void> {
  assert.equal(client.sizeBytes, shadow.length);
  assertSameBytes(await client.read(0, shadow.length), shadow);
  // None touches another: in which order a server carries out what is under way at the same time is its own affair.
  const places = [0, 511, 12_289, 65_535, 1_000_001, 5_242_880, shadow.length - 70_001];
  await Promise.all(
    places.map(async (offset, index) => {
      const data = Buffer.alloc(300 + index * 10_000, index + 1);
      await client.write(offset + index, data, { fua: index % 2 === 0 });
      data.copy(shadow, offset + index);
    }),
  );
  await client.zero(70_000, 200_001);
  shadow.fill(0, 70_000, 270_001);
  await client.zero(2_097_152, 65_536, { keepSpace: true });
  shadow.fill(0, 2_097_152, 2_162_688);
  await client.trim(3_145_728, 1_048_576);
  await client.write(3_145_728, shadow.subarray(3_145_728, 4_194_304));
  await client.flush();
  assertSameBytes(await client.read(0, shadow.length), shadow);
  let at = 0;
  for (const { offset, length, kind } of await client.extents(0, shadow.length)) {
    assert.equal(offset, at);
    if (kind !== "data") assertSameBytes(shadow.subarray(offset, offset + length), Buffer.alloc(length));
    at += length;
  }
  assert.equal(at, shadow.length);
}

suite("our client on servers of others", { concurrency: 1, ...needs(debian) }, () => {
  const nbdkits: Record<string, string[]> = {
    "a file, several connections": ["file", "DISK"],
    "no block status": ["--filter=noextents", "file", "DISK"],
    "no zeroes of its own, FUA ignored": [
      "--filter=nozero",
      "--filter=fua",
      "file",
      "DISK",
      "fuamode=discard",
    ],
    "blocks of 4096 only": [
      "--filter=blocksize-policy",
      "file",
      "DISK",
      "blocksize-minimum=4096",
      "blocksize-error-policy=error",
    ],
    "one connection only": ["--filter=multi-conn", "file", "DISK", "multi-conn-mode=disable"],
    "no structured replies": ["--no-sr", "file", "DISK"],
  };
  for (const [name, args] of Object.entries(nbdkits))
    test(`nbdkit: ${name}`, async () => {
      using folder = workFolder();
      const content = patternedDisk(sizeBytes);
      writeFileSync(folder.file("disk"), content);
      const socket = folder.file("s");
      const plugin = args.map((arg) => (arg === "DISK" ? folder.file("disk") : arg));
      await using _peer = await startPeer("nbdkit", ["-f", "-U", socket, ...plugin], listening(socket));
      await using client = await openNbdClient(toUnix(socket, { connections: 4 }));
      await exercise(client, content);
      assert.ok(readFileSync(folder.file("disk")).equals(content), "the file holds what was written");
    });

  test("nbdkit: zeroes across its blocks are written as data at their edges alone", async () => {
    using folder = workFolder();
    const gib = 1024 ** 3;
    writeFileSync(folder.file("disk"), "");
    truncateSync(folder.file("disk"), 2 * gib);
    const socket = folder.file("s");
    const limits = ["blocksize-minimum=4096", "blocksize-error-policy=error"];
    const plugin = ["--filter=blocksize-policy", "file", folder.file("disk"), ...limits];
    await using _peer = await startPeer("nbdkit", ["-f", "-U", socket, ...plugin], listening(socket));
    await using client = await openNbdClient(toUnix(socket, {}));
    const edges = [999, gib + 5000];
    for (const edge of edges) await client.write(edge - 1, Buffer.from([1, 2, 3]));
    const before = process.memoryUsage().rss;
    await client.zero(edges[0] ?? 0, (edges[1] ?? 0) - (edges[0] ?? 0));
    const grown = process.memoryUsage().rss - before;
    assert.ok(grown < 256 * 1024 * 1024, `memory grew by ${grown} bytes`);
    assert.deepEqual(await client.read(998, 3), Buffer.from([1, 0, 0]));
    assert.deepEqual(await client.read(gib + 4999, 3), Buffer.from([0, 2, 3]));
  });

  test("qemu-nbd: a qcow2 image and its dirty bitmap", async () => {
    using folder = workFolder();
    const image = folder.file("disk.qcow2");
    await succeed("qemu-img", "create", "-f", "qcow2", image, String(sizeBytes));
    await succeed("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", image);
    await succeed("qemu-img", "bitmap", "--add", "-g", "65536", image, "b0");
    await succeed("qemu-io", "-f", "qcow2", "-c", "write -P 2 512k 100k", "-c", "write -P 3 4M 1", image);
    const socket = folder.file("s");
    const args = [
      "-t",
      "-e",
      "4",
      "-f",
      "qcow2",
      "-B",
      "b0",
      "-x",
      "disk",
      "-D",
      "an image",
      "-k",
      socket,
      image,
    ];
    await using _peer = await startPeer("qemu-nbd", args, listening(socket));
    const context = "qemu:dirty-bitmap:b0";
    const options = toUnix(socket, { exportName: "disk", contexts: [context], connections: 2 });
    assert.deepEqual(await listNbdExports(options, AbortSignal.timeout(5_000)), [
      { name: "disk", description: "an image" },
    ]);
    await using client = await openNbdClient(options);
    assert.deepEqual(client.contexts, ["base:allocation", context]);
    assert.equal(client.description, "an image");
    const dirty = (await client.dirtyExtents(context, 0, sizeBytes)).filter(({ dirty }) => dirty);
    assert.deepEqual(dirty, [
      { offset: 524_288, length: 131_072, dirty: true },
      { offset: 4_194_304, length: 65_536, dirty: true },
    ]);
    // Asked for a part that cuts through: cut to what was asked.
    assert.deepEqual(await client.dirtyExtents(context, 600_000, 100_000), [
      { offset: 600_000, length: 55_360, dirty: true },
      { offset: 655_360, length: 44_640, dirty: false },
    ]);
    const shadow = Buffer.alloc(sizeBytes);
    shadow.fill(1, 0, 1_048_576).fill(2, 524_288, 626_688).fill(3, 4_194_304, 4_194_305);
    await exercise(client, shadow);
  });

  test("TLS with certificates and with keys, on Unix sockets and TCP", async () => {
    using folder = workFolder();
    const pki = await makeCertificates(folder.path);
    const psk = makePsk(folder.path);
    writeFileSync(folder.file("disk"), patternedDisk(sizeBytes));
    const file = ["file", folder.file("disk")];
    const certificates = `nbds+unix:///?socket=/s&tls-certificates=${folder.path}&tls-hostname=localhost`;
    const certified = { tls: (await loadClientTls(parseNbdUri(certificates))) ?? {} };
    const keyed = {
      tls: (await loadClientTls(parseNbdUri(`nbds://alice@127.0.0.1/?tls-psk-file=${psk.file}`))) ?? {},
    };
    await assert.rejects(loadClientTls(parseNbdUri(`nbds://bob@127.0.0.1/?tls-psk-file=${psk.file}`)), {
      code: "input.invalid",
    });
    const byCertificate = ["--tls=require", `--tls-certificates=${folder.path}`, "--tls-verify-peer"];
    {
      await using _peer = await startPeer(
        "nbdkit",
        ["-f", "-U", folder.file("x"), ...byCertificate, ...file],
        listening(folder.file("x")),
      );
      await using client = await openNbdClient(toUnix(folder.file("x"), certified));
      await exercise(client, patternedDisk(sizeBytes));
      await assert.rejects(openNbdClient(toUnix(folder.file("x"))), {
        code: "nbd.refused",
        message: /TLS only/,
      });
      const stranger = { tls: { ca: pki.stranger.cert, certificate: pki.client } };
      await assert.rejects(openNbdClient(toUnix(folder.file("x"), stranger)), { code: "auth.invalid" });
    }
    writeFileSync(folder.file("disk"), patternedDisk(sizeBytes));
    {
      const [port = 0] = await freePorts(1);
      const address = { kind: "tcp", host: "127.0.0.1", port } as const;
      const args = [
        "-f",
        "-i",
        "127.0.0.1",
        "-p",
        String(port),
        "-P",
        folder.file("pid"),
        "--tls=require",
        `--tls-psk=${psk.file}`,
        ...file,
      ];
      await using _peer = await startPeer("nbdkit", args, async () => existsSync(folder.file("pid")));
      await using client = await openNbdClient(toUnix("", { address, ...keyed }));
      await exercise(client, patternedDisk(sizeBytes));
      await assert.rejects(
        openNbdClient(toUnix("", { address, tls: { psk: { identity: "mallory", key: psk.key } } })),
        { code: "auth.invalid" },
      );
    }
    const [port = 0] = await freePorts(1);
    const object = `tls-creds-x509,id=t,endpoint=server,dir=${folder.path},verify-peer=yes`;
    const args = [
      "-t",
      "-f",
      "raw",
      "-b",
      "127.0.0.1",
      "-p",
      String(port),
      "--pid-file",
      folder.file("pid2"),
      "--object",
      object,
      "--tls-creds",
      "t",
      folder.file("disk"),
    ];
    await using _peer = await startPeer("qemu-nbd", args, async () => existsSync(folder.file("pid2")));
    await using client = await openNbdClient(
      toUnix("", { address: { kind: "tcp", host: "localhost", port }, ...certified }),
    );
    await exercise(client, readFileSync(folder.file("disk")));
  });

  test("a server that dies: reads go on with the next, writes without an answer are unknown, unflushed ones are told", async () => {
    using folder = workFolder();
    const content = patternedDisk(sizeBytes);
    writeFileSync(folder.file("disk"), content);
    const socket = folder.file("s");
    const start = () =>
      startPeer(
        "nbdkit",
        ["-f", "-U", socket, "--filter=delay", "file", folder.file("disk"), "rdelay=300ms", "wdelay=300ms"],
        listening(socket),
      );
    const first = await start();
    await using client = await openNbdClient(toUnix(socket));
    await client.write(0, content.subarray(0, 10));
    const read = client.read(100_000, 50_000);
    const write = client.write(0, content.subarray(0, 4_096));
    const unknown = assert.rejects(write, { code: "nbd.unreachable", outcome: "unknown" });
    // Answered at once, over the same connection: the two before it have arrived, and are being delayed.
    await client.extents(0, 4_096);
    first.process.kill("SIGKILL");
    await once(first.process, "exit");
    await unknown;
    rmSync(socket);
    await using _second = await start();
    assertSameBytes(await read, content.subarray(100_000, 150_000));
    await assert.rejects(client.flush(), { code: "nbd.unreachable", outcome: "unknown" });
    await client.write(0, content.subarray(0, 10));
    await client.flush();
  });

  test("a server that dies: with repeated writes all of them arrive", async () => {
    using folder = workFolder();
    writeFileSync(folder.file("disk"), Buffer.alloc(sizeBytes));
    const socket = folder.file("s");
    const start = () =>
      startPeer(
        "nbdkit",
        ["-f", "-U", socket, "--filter=delay", "file", folder.file("disk"), "wdelay=50ms"],
        listening(socket),
      );
    const first = await start();
    await using client = await openNbdClient(toUnix(socket, { repeatWrites: true, trustServerCache: true }));
    const content = patternedDisk(sizeBytes);
    const writes = Array.from({ length: 128 }, (_, index) =>
      client.write(index * 65_536, content.subarray(index * 65_536, (index + 1) * 65_536)),
    );
    await writes[0];
    first.process.kill("SIGKILL");
    await once(first.process, "exit");
    rmSync(socket);
    await using _second = await start();
    await Promise.all(writes);
    await client.flush();
    assert.ok(readFileSync(folder.file("disk")).equals(content), "every write is there");
  });
});
