import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Command } from "commander";
import { openApiFixture, operatorToken, witnessToken, type ApiFixture } from "#api/api.fixture.ts";
import type { CommandContext, Launchers } from "#cli/command-context.ts";
import { buildProgram, runCli } from "#cli/program.ts";
import { errorCodes, OperationalError } from "#kernel/errors.ts";

let fixture: ApiFixture;
let api = "";
const folder = mkdtempSync(join(tmpdir(), "understudy-program-"));

before(async () => {
  fixture = await openApiFixture();
  await fixture.app.listen({ host: "127.0.0.1", port: 0 });
  api = `http://127.0.0.1:${(fixture.app.server.address() as AddressInfo).port}`;
});
after(async () => {
  await fixture.app.close();
  rmSync(folder, { recursive: true });
});

interface Said {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  readonly asked: readonly string[];
}

interface Setting {
  /** What the user types when asked; undefined: no terminal. */
  readonly types?: string;
  readonly token?: string;
  readonly launchers?: Partial<Launchers>;
  readonly signal?: AbortSignal;
}

function contextOf(setting: Setting): { context: CommandContext; said: () => Omit<Said, "code"> } {
  const out: string[] = [];
  const err: string[] = [];
  const asked: string[] = [];
  const context: CommandContext = {
    terminal: {
      out: (text) => void out.push(text),
      err: (text) => void err.push(text),
      interactive: setting.types !== undefined,
      ask: (question) => {
        asked.push(question);
        return Promise.resolve(setting.types ?? "");
      },
    },
    launchers: (setting.launchers ?? {}) as Launchers,
    environment: { UNDERSTUDY_API: api, UNDERSTUDY_TOKEN: setting.token ?? operatorToken },
    version: "1.2.3",
    signal: setting.signal ?? new AbortController().signal,
    exitWith: () => undefined,
  };
  return { context, said: () => ({ out: out.join("\n"), err: err.join("\n"), asked }) };
}

async function cli(line: string, setting: Setting = {}): Promise<Said> {
  const { context, said } = contextOf(setting);
  const code = await runCli(line.split(" ").filter(Boolean), context);
  return { code, ...said() };
}

function leavesOf(command: Command, path: readonly string[] = []): string[] {
  const children = command.commands.filter((child) => child.name() !== "help");
  if (children.length === 0) return [path.join(" ")];
  return children.flatMap((child) => leavesOf(child, [...path, child.name()]));
}

test("each command's help has its examples, and says where the exit codes stand", async () => {
  const leaves = leavesOf(buildProgram(contextOf({}).context));
  assert.ok(leaves.length >= 18, leaves.join(", "));
  for (const leaf of leaves) {
    const { code, out, err } = await cli(`${leaf} --help`);
    assert.deepEqual([code, err], [0, ""], leaf);
    assert.match(out, new RegExp(`Examples\\n {2}\\$ understudy ${leaf}`, "u"));
    assert.match(out, /Exit codes/u);
  }
});

test("the help documents every exit code that an error can have", async () => {
  const { out } = await cli("--help");
  for (const [code, { exit }] of Object.entries(errorCodes)) {
    assert.match(out, new RegExp(`^ {2}${exit}  \\S`, "mu"), code);
  }
});

test("each code of an error ends the program with its exit code", async () => {
  for (const [code, { exit }] of Object.entries(errorCodes)) {
    fixture.failure = new OperationalError(code as keyof typeof errorCodes, `this is ${code}`);
    const said = await cli("env show shop --json");
    assert.equal(said.code, exit, code);
    assert.equal(said.out, "");
    assert.deepEqual(JSON.parse(said.err), { error: { code, message: `this is ${code}` } });
  }
  fixture.failure = undefined;
});

test("what is mistyped is named, with what was meant", async () => {
  for (const [line, says] of [
    ["statsu", /statsu[^]*status/u],
    ["env sho", /sho[^]*show/u],
    ["failover --foce", /--foce[^]*--force/u],
    ["status --jsn", /--jsn[^]*--json/u],
    ["status now", /too many arguments/u],
    ["run show", /missing required argument 'run'/u],
    ["devcloud up", /--dialect/u],
    ["devcloud up --dialect azure", /ec2, openstack/u],
    ["devcloud up --dialect ec2 --port many", /whole number/u],
    ["devcloud up --dialect ec2 --port 70000", /65535/u],
    ["devcloud up --dialect ec2 --rate fast", /number above 0/u],
    ["journal tail -n bad", /whole number/u],
    ["journal tail -n 5x", /whole number/u],
    ["journal tail -n 0", /1 to 1000/u],
    ["witness", /--api and --token-file/u],
    ["keys create shop --rights all", /read, change/u],
    ["status --api nowhere", /http:\/\//u],
  ] as const) {
    const said = await cli(line);
    assert.equal(said.code, 2, line);
    assert.match(said.err, says);
    assert.equal(said.out, "");
    const asJson = await cli(`${line} --json`);
    if (line === "status --jsn") continue;
    assert.equal(asJson.code, 2);
    const { error } = JSON.parse(asJson.err) as { error: { code: string; message: string } };
    assert.equal(error.code, "input.invalid", line);
  }
});

test("what cannot be undone wants the environment's name, typed or given", async () => {
  const begun = (): number => fixture.started.length;
  const start = begun();
  for (const setting of [{ types: "" }, { types: "shopp" }, { types: "yes" }, {}]) {
    const said = await cli("failover shop --no-wait", setting);
    assert.equal(said.code, 3);
    assert.match(said.err, /--confirm shop/u);
    assert.equal(said.asked.length, setting.types === undefined ? 0 : 1);
  }
  assert.equal((await cli("failback shop --confirm other --no-wait", { types: "shop" })).code, 3);
  assert.equal(begun(), start, "nothing began without its confirmation");

  const typed = await cli("failover shop --no-wait", { types: "shop " });
  assert.equal(typed.code, 0, typed.err);
  assert.match(typed.asked[0] ?? "", /moves all users[^]*Type "shop"/u);
  assert.match(typed.out, /failover-1 has begun: understudy run show failover-1/u);
  const ended = await cli("run cancel failover-1");
  assert.equal(ended.code, 0, ended.err);
  assert.match(ended.out, /^failover-1 is being undone: understudy run show failover-1$/mu);
  assert.equal((await cli("run cancel failover-2")).code, 4);
  assert.equal((await cli("swap shop --confirm shop --no-wait --json")).code, 0);
  const drill = await cli("drill shop --no-wait");
  assert.deepEqual([drill.code, drill.asked.length], [0, 0], "a drill undoes itself");
  assert.deepEqual(
    fixture.started.slice(start).map(({ kind, force }) => [kind, force]),
    [
      ["failover", false],
      ["swap", false],
      ["drill", false],
    ],
  );
});

test("force wants a reason", async () => {
  const said = await cli("failover shop --confirm shop --force --no-wait");
  assert.equal(said.code, 2);
  assert.match(said.err, /--reason/u);
  assert.equal((await cli("failover shop --confirm shop --force --reason fire --no-wait")).code, 0);
  assert.equal(fixture.started.at(-1)?.force, true);
  assert.equal(fixture.started.at(-1)?.reason, "fire");
});

test("a wrong token, and one that is for something else", async () => {
  assert.equal((await cli("gaps shop", { token: "wrong-0123456789abcdef" })).code, 5);
  const witness = await cli("gaps shop", { token: witnessToken });
  assert.equal(witness.code, 5);
  assert.match(witness.err, /witness/u);
});

test("some other program in the control plane's place is told from it", async () => {
  const { createServer } = await import("node:http");
  const other = createServer((_request, response) => response.writeHead(404).end("<html>not this</html>"));
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
  const said = await cli(`gaps shop --api ${url}`);
  other.close();
  other.closeAllConnections();
  assert.equal(said.code, 6);
  assert.match(said.err, /answered 404, but not as an Understudy control plane/u);
});

test("config check: in order, with warnings, and with every problem at its line", async () => {
  const path = join(folder, "understudy.yaml");
  assert.equal((await cli(`init --config ${path}`)).code, 0);
  assert.equal((await cli(`init --config ${path}`)).code, 3);
  const fine = await cli(`config check --config ${path} --json`);
  assert.deepEqual([fine.code, JSON.parse(fine.out)], [0, { ok: true, problems: [] }]);
  writeFileSync(path, "version: 1\nsites: {}\nenvironments: {}\nreplicas: 3\nlisten: {gateway: nowhere}\n");
  const bad = await cli(`config check --config ${path}`);
  assert.equal(bad.code, 2);
  assert.match(bad.err, /understudy\.yaml:4: unknown key "replicas"/u);
  assert.match(bad.err, /understudy\.yaml:5: listen\.gateway: an address looks like/u);
  const asJson = await cli(`config check --config ${path} --json`);
  assert.equal((JSON.parse(asJson.out) as { problems: unknown[] }).problems.length, 2);
  assert.equal((await cli(`init --config ${join(folder, "no", "such", "folder.yaml")}`)).code, 2);
});

test("an interruption ends with 130, and a fault after it keeps its own code", async () => {
  const stop = new AbortController();
  const reason = new Error("stopped by SIGINT");
  const launchers: Partial<Launchers> = {
    up: () => {
      stop.abort(reason);
      return Promise.reject(reason);
    },
  };
  assert.equal((await cli("up", { launchers, signal: stop.signal })).code, 130);
  const failing: Partial<Launchers> = {
    up: () => Promise.reject(new OperationalError("store.full", "no space left")),
  };
  assert.equal((await cli("up", { launchers: failing, signal: stop.signal })).code, 7);
});

test("a cloud that fails its verification is not whole: 8", async () => {
  const verify = (whole: boolean): Partial<Launchers> => ({ verifyCloud: () => Promise.resolve(whole) });
  assert.equal((await cli("cloud verify east", { launchers: verify(false) })).code, 8);
  assert.equal((await cli("cloud verify east", { launchers: verify(true) })).code, 0);
});
