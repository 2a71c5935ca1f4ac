// A gateway before an OpenStack as a process of its own, which can be told to die (SIGKILL) at its n-th durable step.
import { join } from "node:path";
import { openAccessKeys } from "#gateway/access-keys.ts";
import { KeystoneAccess, type OpenstackUpstreamCredentials } from "#gateway/openstack/openstack-access.ts";
import { createOpenstackDialect } from "#gateway/openstack/openstack-dialect.ts";
import { startGateway } from "#gateway/start-gateway.ts";
import { openJournal } from "#journal/open-journal.ts";
import { systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";

export interface ChildOptions {
  readonly folder: string;
  readonly authUrl: string;
  readonly region: string;
  readonly user: string;
  readonly password: string;
  readonly environment: string;
  /** 0: never. */
  readonly killAt: number;
}

const options = JSON.parse(process.env["GATEWAY_CHILD"] ?? "{}") as ChildOptions;
const environment = environmentId(options.environment);
const ports = { clock: systemClock, random: systemRandom };
let armed = false;
let steps = 0;
const store = await openSqliteStore({
  path: join(options.folder, "state.db"),
  foldBeside: true,
  onCommit: () => {
    if (!armed) return;
    steps += 1;
    if (steps === options.killAt) process.kill(process.pid, "SIGKILL");
  },
});
const row = {
  id: environment,
  active_site: "a",
  standby_site: "b",
  phase: "protected",
  epoch: 1,
  updated_at: 0,
};
const insert = store.db.insertInto("environment").values(row);
await store.commit([{ query: insert.onConflict((on) => on.column("id").doNothing()).compile() }]);
const keys = await openAccessKeys(join(options.folder, "keys.json"), ports);
const key = await keys.create({ environment, rights: "change", label: "e2e" });
const { authUrl, region, user: name } = options;
const access = new KeystoneAccess({
  authUrl,
  region,
  credentials: { type: "password", user: { name }, password: new Secret(options.password) },
  project: { name },
  clock: systemClock,
});
const credentials: OpenstackUpstreamCredentials = { kind: "openstack", access };
armed = true;
const gateway = await startGateway({
  listen: { host: "127.0.0.1", port: 0 },
  environments: [
    { id: environment, services: new Map([["openstack", { endpoint: authUrl, region, credentials }]]) },
  ],
  dialects: [createOpenstackDialect({ keys, ...ports })],
  journal: await openJournal(store, { clock: systemClock }),
  fence: () => ({ epoch: 1, moved: null }),
  ...ports,
  log: silentLog,
  limits: { settleMs: 300, answerTimeoutMs: 5_000, lockWaitMs: 10_000 },
});
console.log(JSON.stringify({ address: gateway.address, id: key.id, secret: key.secret.reveal() }));
process.stdin.on("end", () => {
  void gateway
    .close()
    .then(() => access[Symbol.asyncDispose]())
    .then(() => store.close())
    .then(() => process.exit(0));
});
process.stdin.resume();
