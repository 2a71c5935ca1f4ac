/** boto3 through the gateway: told the same as without it. */
import { test } from "node:test";
import { boto3Missing, openBoto3Client } from "./boto3-client.ts";
import { tellsTheSame } from "./whole-script.ts";

void test("boto3: a shop's life and each known error", { skip: boto3Missing(), timeout: 120_000 }, (t) =>
  tellsTheSame(t, (endpoint) => openBoto3Client(endpoint, { maxAttempts: 1 })),
);
