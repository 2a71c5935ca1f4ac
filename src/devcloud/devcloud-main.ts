/** `node src/devcloud/devcloud-main.ts --dialect ec2 --port 4566 --data DIR`: prints one JSON line when ready, serves until SIGTERM. */
import { parseArgs } from "node:util";
import {
  type ComputeName,
  computeNames,
  type DialectName,
  dialectKinds,
  readFaults,
  readLimits,
  startDevcloud,
} from "#devcloud/start-devcloud.ts";
import { errorCodes, isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import { type Log, type LogFields } from "#kernel/log.ts";

const usage = `usage: devcloud-main --dialect NAME --data DIR [--port P] [--host H] [--region R]
  [--address-base 127.40.0.0/16] [--compute process|qemu|none] [--accelerator tcg|kvm] [--access-key-id ID] [--faults FILE] [--limits FILE]
  [--latency-ms N] [--jitter-ms N] [--boot-ms N]`;

function stderrLog(bound: LogFields = {}): Log {
  const at =
    (level: string) =>
    (fields: LogFields, message: string): void => {
      process.stderr.write(`${JSON.stringify({ level, ...bound, ...fields, message })}\n`);
    };
  return {
    debug: () => {},
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: (fields) => stderrLog({ ...bound, ...fields }),
  };
}

function number(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[0-9]{1,6}$/.test(text)) throw new OperationalError("input.invalid", `--${name} must be a number`);
  return Number(text);
}

const isCompute = (name: string): name is ComputeName => (computeNames as readonly string[]).includes(name);
const isDialect = (name: string): name is DialectName => Object.hasOwn(dialectKinds, name);

async function main(): Promise<void> {
  const text = { type: "string" } as const;
  const { values } = parseArgs({
    options: {
      dialect: text,
      data: text,
      port: text,
      host: text,
      region: text,
      "address-base": text,
      compute: text,
      accelerator: text,
      "access-key-id": text,
      faults: text,
      limits: text,
      "latency-ms": text,
      "jitter-ms": text,
      "boot-ms": text,
    },
  });
  const { dialect, data, compute, faults, limits } = values;
  if (dialect === undefined || !isDialect(dialect)) {
    const names = Object.keys(dialectKinds).join(" or ");
    throw new OperationalError("input.invalid", `--dialect must be ${names}\n${usage}`);
  }
  if (data === undefined) throw new OperationalError("input.invalid", `--data is missing\n${usage}`);
  if (compute !== undefined && !isCompute(compute)) {
    throw new OperationalError("input.invalid", `--compute must be ${computeNames.join(" or ")}\n${usage}`);
  }
  const { accelerator } = values;
  if (accelerator !== undefined && accelerator !== "tcg" && accelerator !== "kvm") {
    throw new OperationalError("input.invalid", `--accelerator must be tcg or kvm\n${usage}`);
  }
  const fixedMs = number("latency-ms", values["latency-ms"]);
  const jitterMs = number("jitter-ms", values["jitter-ms"]);
  const bootMs = number("boot-ms", values["boot-ms"]);
  const devcloud = await startDevcloud({
    dialect,
    dataDir: data,
    port: number("port", values.port) ?? 0,
    log: stderrLog(),
    ...(limits === undefined ? {} : await readLimits(limits)),
    ...(fixedMs === undefined && jitterMs === undefined
      ? {}
      : { latency: { fixedMs: fixedMs ?? 0, jitterMs: jitterMs ?? 0 } }),
    ...(values.host === undefined ? {} : { host: values.host }),
    ...(values.region === undefined ? {} : { region: values.region }),
    ...(values["address-base"] === undefined ? {} : { addressBase: values["address-base"] }),
    ...(values["access-key-id"] === undefined ? {} : { accessKeyId: values["access-key-id"] }),
    ...(compute === undefined ? {} : { compute }),
    ...(accelerator === undefined ? {} : { accelerator }),
    ...(faults === undefined ? {} : { faults: await readFaults(faults) }),
    ...(bootMs === undefined ? {} : { lifecycle: { bootMs } }),
  });
  const stop = (): void => {
    devcloud.close().then(
      () => process.exit(0),
      (error: unknown) => fail(error),
    );
  };
  process.once("SIGTERM", stop);
  process.once("SIGINT", stop);
  process.stdout.write(`${JSON.stringify(devcloud.ready)}\n`);
}

function fail(error: unknown): never {
  process.stderr.write(`devcloud: ${publicMessage(error)}\n`);
  process.exit(isOperational(error) ? errorCodes[error.code].exit : 1);
}

main().catch(fail);
