// For tests: a server to attack, in a process of its own so that its memory can be seen. `hostile-server.ts SOCKET`.
import { MemoryDevice } from "#nbd/memory-device.ts";
import { singleExport } from "#nbd/export-provider.ts";
import { serveOn } from "./nbd-peers.ts";

const device = new MemoryDevice({ sizeBytes: 64 * 1024 * 1024 });
await serveOn(process.argv[2] ?? "", singleExport("disk", device), { handshakeMs: 1_500 });
