import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { formatNbdUri, parseNbdUri } from "./nbd-uri.ts";

test("addresses of every kind", () => {
  assert.deepEqual(parseNbdUri("nbd://example.org"), {
    address: { kind: "tcp", host: "example.org", port: 10809 },
    exportName: "",
    tls: false,
  });
  assert.deepEqual(parseNbdUri("nbds://alice@[::1]:99/a%20b/c?tls-psk-file=/keys"), {
    address: { kind: "tcp", host: "::1", port: 99 },
    exportName: "a b/c",
    tls: true,
    username: "alice",
    tlsPskFile: "/keys",
  });
  assert.deepEqual(parseNbdUri("nbds+unix:///disk?socket=/tmp/s&tls-certificates=/pki&tls-hostname=vault"), {
    address: { kind: "unix", path: "/tmp/s" },
    exportName: "disk",
    tls: true,
    tlsCertificates: "/pki",
    tlsHostname: "vault",
  });
});

test("what is no address says why", () => {
  const wrong = {
    "http://example.org": /must begin with/,
    "nbd+unix:///disk": /needs \?socket/,
    "nbd+unix://host/disk?socket=/s": /no host/,
    "nbd://host?socket=/s": /nbd\+unix/,
    "nbd://host?sokcet=/s": /no parameter sokcet/,
    "nbd://host:port/": /no URL/,
    "nbd://a:b@host/": /password/,
    "nbd://host/%zz": /two hex digits/,
  };
  for (const [uri, message] of Object.entries(wrong))
    assert.throws(() => parseNbdUri(uri), { code: "input.invalid", message });
});

test("an address that is formatted parses to itself", () => {
  const plain = { noNullPrototype: true } as const;
  const word = fc.string({ minLength: 1, maxLength: 12 });
  const path = fc
    .array(fc.stringMatching(/^[a-z0-9 +&?=%#]{1,8}$/), { minLength: 1, maxLength: 3 })
    .map((parts) => `/${parts.join("/")}`);
  const address = fc.oneof(
    fc.record({ kind: fc.constant("unix" as const), path }, plain),
    fc.record(
      {
        kind: fc.constant("tcp" as const),
        host: fc.constantFrom("localhost", "10.0.0.1", "fe80::1", "vault.example.org"),
        port: fc.integer({ min: 1, max: 65_535 }),
      },
      plain,
    ),
  );
  fc.assert(
    fc.property(fc.record({ address, exportName: word, tls: fc.boolean(), tlsPskFile: path }, plain), (uri) =>
      assert.deepEqual(parseNbdUri(formatNbdUri(uri)), uri),
    ),
  );
});
