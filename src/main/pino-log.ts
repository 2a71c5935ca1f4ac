import { pino, type Logger } from "pino";
import type { Log, LogFields } from "#kernel/log.ts";

/** Logs as JSON lines on standard error; what is a `Secret` prints as stars, and headers that carry one are cut out. */
export function createPinoLog(level: string): Log {
  const logger = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: {
        paths: ["authorization", "*.authorization", "headers.authorization", "password", "*.password"],
        censor: "***",
      },
    },
    pino.destination({ dest: 2, sync: true }),
  );
  return wrap(logger);
}

function wrap(logger: Logger): Log {
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    child: (fields: LogFields) => wrap(logger.child(fields)),
  };
}
