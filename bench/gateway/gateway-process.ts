// Our side: a gateway with its real journal on disk.
import { join } from "node:path";
import { systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import { openAccessKeys } from "#gateway/access-keys.ts";
import type { AwsCredentials } from "#gateway/aws/aws-credentials.ts";
import { openAwsDialect } from "#gateway/aws/aws-dialect.ts";
import { startGateway } from "#gateway/start-gateway.ts";
import { openJournal } from "#journal/open-journal.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";

const [, , endpoint = "", folder = ""] = process.argv;
const bench = environmentId("bench");
const ports = { clock: systemClock, random: systemRandom };
const store = await openSqliteStore({ path: join(folder, "state.db"), serving: true });
const row = { id: bench, active_site: "a", standby_site: "b", phase: "protected", epoch: 1, updated_at: 0 };
await store.commit([{ query: store.db.insertInto("environment").values(row).compile() }]);
const keys = await openAccessKeys(join(folder, "keys.json"), ports);
const key = await keys.create({ environment: bench, rights: "change", label: "bench" });
const credentials: AwsCredentials = {
  kind: "aws",
  accessKeyId: "AKIAIOSFODNN7EXAMPLE",
  secretAccessKey: new Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
};
const gateway = await startGateway({
  listen: { host: "127.0.0.1", port: 0 },
  environments: [{ id: bench, services: new Map([["ec2", { endpoint, region: "eu-west-1", credentials }]]) }],
  dialects: [await openAwsDialect({ keys, ...ports })],
  journal: await openJournal(store, { clock: systemClock }),
  fence: () => ({ epoch: 1, moved: null }),
  ...ports,
  log: silentLog,
});
console.log(JSON.stringify({ port: gateway.port, id: key.id, secret: key.secret.reveal() }));
process.on("SIGTERM", () => {
  void gateway
    .close()
    .then(() => store.close())
    .then(() => process.exit(0));
});
