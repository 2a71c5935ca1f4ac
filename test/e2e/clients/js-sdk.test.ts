/** The AWS SDK for JavaScript v3 through the gateway: told the same as without it. */
import { test } from "node:test";
import { openJsClient } from "./js-client.ts";
import { tellsTheSame } from "./whole-script.ts";

void test("the JS SDK: a shop's life and each known error", { timeout: 120_000 }, (t) =>
  tellsTheSame(t, (endpoint) => openJsClient(endpoint, { maxAttempts: 1 })),
);
