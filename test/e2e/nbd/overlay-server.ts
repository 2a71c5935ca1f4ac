// For tests: a writable overlay over a patterned disk, served until the process is killed. `overlay-server.ts SOCKET FOLDER SIZE`.
import { openFileDevice } from "#nbd/file-device.ts";
import { singleExport } from "#nbd/export-provider.ts";
import { openOverlayDevice } from "#nbd/overlay-device.ts";
import { serveOn } from "./nbd-peers.ts";

const [socket = "", folder = "", base = ""] = process.argv.slice(2);
const overlay = await openOverlayDevice({
  folder,
  base: await openFileDevice({ path: base, writable: false }),
  baseId: "point-1",
});
const dirtyContexts = [
  {
    name: "understudy:dirty",
    extents: (offset: number, length: number) => overlay.changedExtents(offset, length),
  },
];
await serveOn(socket, singleExport("disk", overlay, { dirtyContexts, cheapExtents: true, fastZero: true }));
