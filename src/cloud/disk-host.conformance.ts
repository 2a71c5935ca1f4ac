/**
 * What every disk host must do (the contract is in disk-host.ts) for volumes that no machine has, asked of the real thing; what takes a
 * guest is in test/e2e. A fixture starts that thing; each test has volumes of its own.
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { assertSameBytes } from "#kernel/same-bytes.fixture.ts";
import type { BlockDevice } from "#model/block-device.ts";
import type { DiskHost } from "./disk-host.ts";

export interface DiskHostFixture extends AsyncDisposable {
  readonly host: DiskHost;
  /** A new volume that reads as zeroes. */
  volume(): Promise<string>;
  /** The URI of an export as large as a volume, which begins with the content and is zero from there on. */
  serve(content: Buffer): Promise<string>;
  /** Connects to an NBD URI of the host's or of `serve`. */
  open(uri: string): Promise<BlockDevice>;
}

const signal = new AbortController().signal;
const length = 64 * 1024;
const filled = (byte: number): Buffer => Buffer.alloc(length, byte);

export interface DiskHostConformanceOptions {
  /** Why the suite cannot run here (a missing program); absent: it runs. */
  readonly skip?: string | false;
}

export function diskHostConformance(
  name: string,
  open: () => Promise<DiskHostFixture>,
  { skip = false }: DiskHostConformanceOptions = {},
): void {
  void describe(`disk host conformance: ${name}`, { timeout: 180_000, skip }, () => {
    let fixture: DiskHostFixture;
    before(async () => {
      fixture = await open();
    });
    after(() => fixture[Symbol.asyncDispose]());

    async function contentOf(volumeId: string): Promise<Buffer> {
      const { uri } = await fixture.host.exportVolume(volumeId, signal);
      try {
        await using device = await fixture.open(uri);
        return await device.read(0, length);
      } finally {
        await fixture.host.endExport(volumeId, signal);
      }
    }

    async function writeTo(volumeId: string, content: Buffer): Promise<void> {
      const { uri } = await fixture.host.exportVolume(volumeId, signal);
      try {
        await using device = await fixture.open(uri);
        await device.write(0, content, { fua: true });
      } finally {
        await fixture.host.endExport(volumeId, signal);
      }
    }

    void it("exports a volume once however often it is asked, and what was written stays when the export ends", async () => {
      const { host } = fixture;
      const id = await fixture.volume();
      const { uri } = await host.exportVolume(id, signal);
      assert.deepEqual(await host.exportVolume(id, signal), { uri });
      {
        await using device = await fixture.open(uri);
        await device.write(0, filled(7));
        await device.flush();
      }
      await host.endExport(id, signal);
      await host.endExport(id, signal);
      await assert.rejects(fixture.open(uri), "nobody serves it any more");
      assertSameBytes(await contentOf(id), filled(7));
    });

    void it("gives a volume the source's content at once, and does nothing more when it is said again", async () => {
      const { host } = fixture;
      const id = await fixture.volume();
      const uri = await fixture.serve(filled(3));
      const first = await host.seed({ volumeId: id, uri }, signal);
      assert.deepEqual([first.volumeId, first.uri], [id, uri]);
      assertSameBytes(await contentOf(id), filled(3));
      await writeTo(id, filled(4));
      await host.seed({ volumeId: id, uri }, signal);
      assertSameBytes(await contentOf(id), filled(4), "what was written since is never thrown away");
      assert.equal((await host.seeds(signal)).filter(({ volumeId }) => volumeId === id).length, 1);
    });

    void it("gives up what a volume holds only where that is said, and once for each time that it is said", async () => {
      const { host } = fixture;
      const id = await fixture.volume();
      await writeTo(id, filled(5));
      const uri = await fixture.serve(filled(6));
      await assert.rejects(host.seed({ volumeId: id, uri }, signal), { code: "machine.refused" });
      assertSameBytes(await contentOf(id), filled(5));
      await host.seed({ volumeId: id, uri, replace: "first" }, signal);
      assertSameBytes(await contentOf(id), filled(6));
      await writeTo(id, filled(8));
      await host.seed({ volumeId: id, uri, replace: "first" }, signal);
      assertSameBytes(await contentOf(id), filled(8));
      await host.seed({ volumeId: id, uri, replace: "second" }, signal);
      assertSameBytes(await contentOf(id), filled(6));
    });

    void it("has one capture a volume: the one that was asked for last, until it is stopped", async () => {
      const { host } = fixture;
      const id = await fixture.volume();
      const [first, second] = [await fixture.serve(filled(0)), await fixture.serve(filled(0))];
      const targets = async (): Promise<string[]> =>
        (await host.captures(signal)).filter(({ volumeId }) => volumeId === id).map(({ uri }) => uri);
      const request = { volumeId: id, stallLimitMs: 1000 };
      await host.startCapture({ ...request, uri: first }, signal);
      await host.startCapture({ ...request, uri: first }, signal);
      assert.deepEqual(await targets(), [first]);
      await host.startCapture({ ...request, uri: second }, signal);
      assert.deepEqual(await targets(), [second]);
      await host.stopCapture(id, signal);
      await host.stopCapture(id, signal);
      assert.deepEqual(await targets(), []);
    });
  });
}
