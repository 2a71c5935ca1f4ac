import assert from "node:assert/strict";
import { test } from "node:test";
import { OperationalError } from "#kernel/errors.ts";
import { nbdError } from "#wire/nbd/protocol.ts";
import { errorFromNumber, errorNumberOf } from "./error-number.ts";

test("a failure keeps its meaning over the wire, as far as the wire has a word for it", () => {
  const numbers: [unknown, number][] = [
    [new OperationalError("store.full", "full"), nbdError.ENOSPC],
    [new OperationalError("auth.forbidden", "no"), nbdError.EPERM],
    [new OperationalError("state.fenced", "no"), nbdError.EPERM],
    [new OperationalError("disk.range", "beyond"), nbdError.EINVAL],
    [new OperationalError("vault.damaged", "damaged"), nbdError.EIO],
    [Object.assign(new Error("full"), { code: "EDQUOT" }), nbdError.ENOSPC],
    [Object.assign(new Error("no"), { code: "EROFS" }), nbdError.EPERM],
    [new TypeError("a bug"), nbdError.EIO],
    [undefined, nbdError.EIO],
  ];
  for (const [error, number] of numbers) assert.equal(errorNumberOf(error), number);
  const request = { what: "a write", outcome: "unknown" } as const;
  assert.equal(errorFromNumber(nbdError.ENOSPC, request).code, "store.full");
  assert.equal(errorFromNumber(nbdError.EPERM, request).code, "auth.forbidden");
  assert.equal(errorFromNumber(nbdError.EIO, request).code, "disk.failing");
  assert.equal(errorFromNumber(nbdError.ESHUTDOWN, request).code, "nbd.unreachable");
  assert.equal(errorFromNumber(4242, request).remoteCode, "error 4242");
});
