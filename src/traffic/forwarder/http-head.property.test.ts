import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { endToEnd, forwardedFields, hostName, requestFraming, requestTarget, valuesOf } from "./http-head.ts";

const hopByHop = [
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];
const name = fc.constantFrom(
  "X-A",
  "x-b",
  "Cookie",
  "Connection",
  "Keep-Alive",
  "TE",
  "Trailer",
  "Upgrade",
  "Host",
);
const value = fc.constantFrom("1", "x-a", "X-B, close", "host", "cookie", "keep-alive");
const raw = fc.array(fc.tuple(name, value), { maxLength: 12 }).map((all) => all.flat());

void describe("a message's head on its way through", () => {
  void it("keeps every end-to-end field in order, and no hop-by-hop field nor one that Connection names", () => {
    fc.assert(
      fc.property(raw, (fields) => {
        const kept = endToEnd(fields);
        const named = valuesOf(fields, "connection").flatMap((one) =>
          one.split(",").map((part) => part.trim().toLowerCase()),
        );
        const wanted: string[] = [];
        for (let index = 0; index < fields.length; index += 2) {
          const key = (fields[index] ?? "").toLowerCase();
          const safe = key === "host" || key === "cookie";
          if (hopByHop.includes(key) || (named.includes(key) && !safe)) continue;
          wanted.push(fields[index] ?? "", fields[index + 1] ?? "");
        }
        assert.deepEqual(kept, wanted);
      }),
    );
  });

  void it("has exactly one Host and tells the client's address once, whatever the client claims", () => {
    fc.assert(
      fc.property(raw, fc.ipV4(), (fields, clientAddress) => {
        const claimed = [...fields, "X-Forwarded-For", "9.9.9.9", "Forwarded", "for=9.9.9.9"];
        const sent = forwardedFields(claimed, { host: "h", clientAddress, trustForwardedFor: false });
        assert.deepEqual(valuesOf(sent, "host"), ["h"]);
        assert.deepEqual(valuesOf(sent, "x-forwarded-for"), [clientAddress]);
        assert.deepEqual(valuesOf(sent, "forwarded"), []);
        const trusted = forwardedFields(claimed, { host: "h", clientAddress, trustForwardedFor: true });
        assert.deepEqual(valuesOf(trusted, "x-forwarded-for"), [`9.9.9.9, ${clientAddress}`]);
      }),
    );
  });

  void it("refuses every framing that two parsers could read differently", () => {
    const cases: [string[], string, number | "none" | "length" | "chunked"][] = [
      [[], "1.1", "none"],
      [["Content-Length", "0"], "1.1", "none"],
      [["Content-Length", "12"], "1.1", "length"],
      [["Transfer-Encoding", "Chunked"], "1.1", "chunked"],
      [["Transfer-Encoding", "chunked", "Content-Length", "3"], "1.1", 400],
      [["Content-Length", "3", "Content-Length", "3"], "1.1", 400],
      [["Content-Length", "+3"], "1.1", 400],
      [["Content-Length", "3, 3"], "1.1", 400],
      [["Transfer-Encoding", "chunked"], "1.0", 400],
      [["Transfer-Encoding", "gzip, chunked"], "1.1", 501],
      [["Transfer-Encoding", "chunked", "Transfer-Encoding", "chunked"], "1.1", 501],
      [["Transfer-Encoding", "xchunked"], "1.1", 501],
      [["Host", "a", "Host", "b"], "1.1", 400],
    ];
    for (const [fields, version, wanted] of cases) {
      const framing = requestFraming(fields, version);
      assert.equal("refused" in framing ? framing.status : framing.body, wanted, fields.join(" "));
    }
  });

  void it("takes the host from an absolute target and refuses what is no target", () => {
    assert.deepEqual(requestTarget("/p?q", "h"), { path: "/p?q", host: "h" });
    assert.deepEqual(requestTarget("http://o:8/p?q", "h"), { path: "/p?q", host: "o:8" });
    assert.deepEqual(requestTarget("http://o?q", "h"), { path: "/?q", host: "o" });
    for (const url of ["ftp://o/", "p", "", "http://u@o/", "http:///p"])
      assert.equal(requestTarget(url, "h"), null, url);
    assert.equal(hostName("Ex.test:80"), "ex.test");
    assert.equal(hostName("[::1]:80"), "[::1]");
  });
});
