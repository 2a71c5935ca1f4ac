// Disks that come with a server of a bare host: the image's, which stays as it is, and those that were asked for with it.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { collect } from "#cloud/contract.ts";
import { get, skip } from "../devcloud-qemu/stage.ts";
import { HostUnderTest } from "./host-under-test.ts";
import { becomes, opened, port, request, serverSpec, urlOf } from "./one-server.ts";

/** Serves what the file on the image's disk holds, and then adds a line to it. */
const userData = Buffer.from(`#!/bin/sh
mkdir -p /www && cat /disks/*/lines >/www/index.html
echo "a boot" >>$(ls -d /disks/*/lines) && sync
exec httpd -f -p ${port} -h /www
`).toString("base64");

function makeImage({ folder, imageDisk: path }: HostUnderTest): string {
  const content = join(folder, "content");
  mkdirSync(content);
  writeFileSync(join(content, "lines"), "the image\n");
  rmSync(path);
  const env = { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` };
  execFileSync("mke2fs", ["-q", "-t", "ext4", "-d", content, path, "16M"], { env });
  return path;
}

/** A boot sector that prints its line on the first serial port and stands still: what a boot loader would have begun. */
function bootSector(line: string): Buffer {
  const code = Buffer.concat(
    [
      // ds = 0; si = the line
      "31c08ed8be217c",
      // next: al = [si++]; end at 0
      "ac84c07412",
      // wait until the port takes a byte
      "88c4bafd03eca82074fb",
      // send it; again
      "baf80388e0eeebe9",
      // halt for good
      "f4ebfd",
    ].map((hex) => Buffer.from(hex, "hex")),
  );
  const sector = Buffer.alloc(1024 ** 2);
  Buffer.concat([code, Buffer.from(`${line}\r\n\0`)]).copy(sector);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

const digestOf = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");

test(
  "a server writes beside its image, and a disk that outlives it does",
  { skip, timeout: 120_000 },
  async (t) => {
    await using host = await HostUnderTest.open({ addresses: "127.66.0.0/28" });
    const { cloud } = host;
    const image = makeImage(host);
    const before = digestOf(image);
    await host.start();
    const spec = {
      ...serverSpec(await opened(cloud, t.signal)),
      imageId: "rooted",
      userData,
      blockDevices: [
        { device: "/dev/sdb", sizeGiB: 2, deleteOnTermination: false },
        { device: "/dev/sdc", sizeGiB: 1, deleteOnTermination: true },
      ],
    };
    const { id } = (await cloud.create(request("server", spec, "web"), t.signal)).resource;
    const url = urlOf(await becomes(cloud, id, "ready", t.signal));
    assert.equal(await get(url, t.signal), "the image");
    await cloud.update("server", id, { power: "stopped" }, t.signal);
    await cloud.update("server", id, { power: "running" }, t.signal);
    await becomes(cloud, id, "ready", t.signal);
    assert.equal(await get(url, t.signal), "the image\na boot", "its writes are kept");
    assert.equal(digestOf(image), before, "the image is as it was");
    const files = (): number => readdirSync(join(host.folder, "host/volumes")).length;
    assert.equal(files(), 3);
    assert.deepEqual(await collect(cloud.list("volume", {}, t.signal)), []);

    await cloud.delete("server", id, t.signal);
    const left = await collect(cloud.list("volume", { scope: "test" }, t.signal));
    assert.deepEqual(
      left.map(({ resource }) => resource.spec.sizeGiB),
      [2],
    );
    assert.equal(files(), 1, "the others' files are gone");
    // A second server begins from the image, not from where the first one left it.
    const again = (await cloud.create(request("server", { ...spec, blockDevices: [] }, "web"), t.signal))
      .resource;
    assert.equal(await get(urlOf(await becomes(cloud, again.id, "ready", t.signal)), t.signal), "the image");
  },
);

test("an image that boots by itself does, and says when it serves", { skip, timeout: 120_000 }, async (t) => {
  await using host = await HostUnderTest.open({ addresses: "127.66.0.16/28" });
  const { cloud } = host;
  writeFileSync(host.imageDisk, bootSector("image: up"));
  await host.start();
  const place = await opened(cloud, t.signal);
  const spec = { ...serverSpec(place), imageId: "booting" };
  const { id } = (await cloud.create(request("server", spec, "web"), t.signal)).resource;
  await becomes(cloud, id, "ready", t.signal);
  assert.match(host.console(id), /^image: up/mu);
});
