import assert from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";
import { test } from "node:test";
import { HttpRequest } from "@smithy/core/protocols";
import { SignatureV4 } from "@smithy/signature-v4";
import { Secret } from "#kernel/secret.ts";
import { bodyHash, canonicalPath, canonicalRequest } from "./sigv4-canonical.ts";
import { scopeText, signature } from "./sigv4-key.ts";
import { type SigV4Key, type SigV4Request, type VerifyOptions, signSigV4, verifySigV4 } from "./sigv4.ts";

// AWS's published SigV4 test suite: key, scope and time are the same in all its cases.
const suiteSecret = new Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
const suiteTime = "20150830T123600Z";
const suiteNow = Date.UTC(2015, 7, 30, 12, 36, 0);
const suiteOptions: VerifyOptions = { now: suiteNow, region: "us-east-1", service: "service" };
const suiteToken = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
const only =
  (key: SigV4Key): ((id: string) => SigV4Key | undefined) =>
  (id) =>
    id === "AKIDEXAMPLE" ? key : undefined;
const suiteKey = only({ secretAccessKey: suiteSecret });

function suiteRequest(
  method: string,
  path: string,
  headers: SigV4Request["headers"],
  names: string,
  proof: string,
  body = "",
): SigV4Request {
  return {
    method,
    path,
    headers: {
      host: "example.amazonaws.com",
      "x-amz-date": suiteTime,
      authorization: `AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=${names}, Signature=${proof}`,
      ...headers,
    },
    body,
  };
}

const unreserved = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const vectors: Record<string, SigV4Request> = {
  "get-vanilla": suiteRequest(
    "GET",
    "/",
    {},
    "host;x-amz-date",
    "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
  ),
  "get-vanilla-query-order-key-case": suiteRequest(
    "GET",
    "/?Param2=value2&Param1=value1",
    {},
    "host;x-amz-date",
    "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
  ),
  "get-vanilla-query-unreserved": suiteRequest(
    "GET",
    `/?${unreserved}=${unreserved}`,
    {},
    "host;x-amz-date",
    "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
  ),
  "get-vanilla-utf8-query": suiteRequest(
    "GET",
    "/?ሴ=bar",
    {},
    "host;x-amz-date",
    "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
  ),
  "get-utf8": suiteRequest(
    "GET",
    "/ሴ",
    {},
    "host;x-amz-date",
    "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
  ),
  "get-space-normalized": suiteRequest(
    "GET",
    "/example space/",
    {},
    "host;x-amz-date",
    "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
  ),
  "get-header-key-duplicate": suiteRequest(
    "GET",
    "/",
    { "my-header1": ["value2", "value2", "value1"] },
    "host;my-header1;x-amz-date",
    "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
  ),
  "get-header-value-trim": suiteRequest(
    "GET",
    "/",
    { "my-header1": " value1", "my-header2": ' "a   b   c"' },
    "host;my-header1;my-header2;x-amz-date",
    "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
  ),
  "post-vanilla": suiteRequest(
    "POST",
    "/",
    {},
    "host;x-amz-date",
    "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
  ),
  "post-x-www-form-urlencoded": suiteRequest(
    "POST",
    "/",
    {
      "content-type": "application/x-www-form-urlencoded",
      "content-length": "13",
      "x-amz-content-sha256": "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
    },
    "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
    "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
    "Param1=value1",
  ),
};

for (const [name, request] of Object.entries(vectors)) {
  void test(`AWS test suite: ${name}`, () => {
    const verdict = verifySigV4(request, suiteKey, suiteOptions);
    assert.deepEqual(verdict, {
      ok: true,
      accessKeyId: "AKIDEXAMPLE",
      region: "us-east-1",
      service: "service",
      form: "header",
      signedAt: suiteNow,
    });
  });
}

void test("AWS test suite: get-vanilla-with-session-token", () => {
  const request = suiteRequest(
    "GET",
    "/",
    { "x-amz-security-token": suiteToken },
    "host;x-amz-date;x-amz-security-token",
    "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
  );
  const withToken = only({ secretAccessKey: suiteSecret, sessionToken: new Secret(suiteToken) });
  assert.equal(verifySigV4(request, withToken, suiteOptions).ok, true);
  const otherToken = only({ secretAccessKey: suiteSecret, sessionToken: new Secret("other") });
  for (const keys of [suiteKey, otherToken]) {
    const verdict = verifySigV4(request, keys, suiteOptions);
    assert.ok(!verdict.ok);
    assert.equal(verdict.reason, "session_token");
  }
  // And a key that needs a token, without one.
  const bare = vectors["get-vanilla"];
  assert.ok(bare);
  assert.equal(verifySigV4(bare, withToken, suiteOptions).ok, false);
});

const presignedPath =
  "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fservice%2Faws4_request&X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host&X-Amz-Expires=3600&X-Amz-Signature=";

void test("AWS test suite: get-vanilla, presigned", () => {
  const request: SigV4Request = {
    method: "GET",
    path: `${presignedPath}e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d`,
    headers: { host: "example.amazonaws.com" },
    body: "",
  };
  const at = (now: number) => verifySigV4(request, suiteKey, { ...suiteOptions, now });
  const verdict = at(suiteNow + 3_600_000);
  assert.ok(verdict.ok, JSON.stringify(verdict));
  assert.equal(verdict.form, "query");
  const late = at(suiteNow + 3_600_001);
  assert.ok(!late.ok);
  assert.equal(late.code, "RequestExpired");
  assert.ok(!at(suiteNow - 300_001).ok);
});

void test("AWS's answers for what is wrong", () => {
  const base = vectors["post-x-www-form-urlencoded"];
  assert.ok(base);
  const authorization = String(base.headers["authorization"]);
  const codeOf = (change: Partial<SigV4Request>, options: Partial<VerifyOptions> = {}, keys = suiteKey) => {
    const verdict = verifySigV4({ ...base, ...change }, keys, { ...suiteOptions, ...options });
    return verdict.ok ? "ok" : `${verdict.code} ${verdict.status} ${verdict.reason}`;
  };
  const headers = (changed: Record<string, string | undefined>) => ({
    headers: { ...base.headers, ...changed },
  });
  const auth = (from: string | RegExp, to: string) =>
    headers({ authorization: authorization.replace(from, to) });

  assert.equal(codeOf({}), "ok");
  assert.equal(codeOf(headers({ authorization: undefined })), "MissingAuthenticationToken 403 malformed");
  assert.equal(codeOf(headers({ authorization: "Basic eDp5" })), "IncompleteSignature 400 malformed");
  assert.equal(codeOf(auth("host;", "")), "IncompleteSignature 400 malformed");
  assert.equal(
    codeOf(auth("content-length;content-type", "content-type;content-length")),
    "IncompleteSignature 400 malformed",
  );
  assert.equal(codeOf(auth(/Signature=.*/, "Signature=00")), "IncompleteSignature 400 malformed");
  assert.equal(codeOf(auth(/Signature=/, "Signature=a, Signature=")), "IncompleteSignature 400 malformed");
  assert.equal(codeOf(auth("AKIDEXAMPLE/", "AKID<>/")), "InvalidClientTokenId 403 malformed");
  assert.equal(codeOf(auth("AKIDEXAMPLE/", "AKIDOTHER/")), "AuthFailure 401 unknown_key");
  assert.equal(codeOf(auth("=d3875", "=d3876")), "AuthFailure 401 signature");
  assert.equal(
    codeOf(auth("content-length;", "constructor;content-length;")),
    "SignatureDoesNotMatch 403 malformed",
  );
  assert.equal(
    codeOf(auth("content-length;", "__proto__;content-length;")),
    "SignatureDoesNotMatch 403 malformed",
  );
  assert.equal(codeOf(headers({ "x-amz-extra": "1" })), "SignatureDoesNotMatch 403 malformed");
  assert.equal(codeOf(headers({ "content-length": undefined })), "SignatureDoesNotMatch 403 malformed");
  assert.equal(codeOf({ body: "Param1=value2" }), "SignatureDoesNotMatch 403 body");
  assert.equal(codeOf({ path: "//" }), "IncompleteSignature 400 malformed");
  assert.equal(codeOf({ path: "/?%zz=1" }), "IncompleteSignature 400 malformed");
  assert.equal(codeOf({ path: "/?a=1" }), "AuthFailure 401 signature");
  assert.equal(codeOf({ path: `${presignedPath}00` }), "IncompleteSignature 400 malformed");
  assert.equal(codeOf({}, { now: suiteNow + 300_000 }), "ok");
  assert.equal(codeOf({}, { now: suiteNow + 300_001 }), "RequestExpired 400 expired");
  assert.equal(codeOf({}, { now: suiteNow - 300_001 }), "RequestExpired 400 expired");
  assert.equal(codeOf({}, { region: "eu-west-1" }), "SignatureDoesNotMatch 403 scope");
  assert.equal(codeOf({}, { service: "ec2" }), "SignatureDoesNotMatch 403 scope");
  assert.equal(codeOf(auth("/20150830/", "/20150831/")), "SignatureDoesNotMatch 403 scope");
});

void test("an unknown key and a wrong signature get the same public answer", () => {
  const base = vectors["get-vanilla"];
  assert.ok(base);
  const unknown = verifySigV4(base, () => undefined, suiteOptions);
  const wrong = verifySigV4(base, only({ secretAccessKey: new Secret("other") }), suiteOptions);
  assert.ok(!unknown.ok && !wrong.ok);
  assert.deepEqual({ ...unknown, reason: "" }, { ...wrong, reason: "" });
});

const day = Date.UTC(2026, 0, 2, 3, 4, 5);
const ownSecret = new Secret("a secret / with + signs");
const scope = { region: "eu-central-1", service: "ec2" };

function vendorSigner(sessionToken?: string): SignatureV4 {
  class Sha256 {
    readonly #chunks: Uint8Array[] = [];
    readonly #key: Uint8Array | string | undefined;
    constructor(key?: Uint8Array | string) {
      this.#key = key;
    }
    update(chunk: Uint8Array | string): void {
      this.#chunks.push(Buffer.from(chunk as Uint8Array));
    }
    digest(): Promise<Uint8Array> {
      const hasher = this.#key === undefined ? createHash("sha256") : createHmac("sha256", this.#key);
      return Promise.resolve(hasher.update(Buffer.concat(this.#chunks)).digest());
    }
    reset(): void {
      this.#chunks.length = 0;
    }
  }
  const credentials = { accessKeyId: "AKIDEXAMPLE", secretAccessKey: ownSecret.reveal() };
  return new SignatureV4({
    ...scope,
    credentials: sessionToken === undefined ? credentials : { ...credentials, sessionToken },
    sha256: Sha256 as unknown as ConstructorParameters<typeof SignatureV4>[0]["sha256"],
  });
}

function vendorRequest(): HttpRequest {
  return new HttpRequest({
    method: "POST",
    hostname: "ec2.test",
    path: "/some/path%20x/",
    query: { "b c": "d+e", a: ["2", "1"], "a-b": "~*!'()", é: "𝒳" },
    headers: {
      host: "ec2.test:8080",
      "content-type": "text/plain; charset=utf-8",
      "x-thing": "  two   words ",
    },
    body: "Action=RunInstances&ImageId=é",
  });
}

const vendorTarget = "/some/path%20x/?a-b=~%2A%21%27%28%29&a=2&a=1&b+c=d%2Be&%C3%A9=%F0%9D%92%B3";

for (const token of [undefined, "session/token=="]) {
  const key = only({
    secretAccessKey: ownSecret,
    sessionToken: token === undefined ? undefined : new Secret(token),
  });
  const kind = token === undefined ? "long-term" : "temporary";

  void test(`the vendor's signer, header form, ${kind} credentials`, async () => {
    const signed = await vendorSigner(token).sign(vendorRequest(), { signingDate: new Date(day) });
    const request = {
      method: "POST",
      path: vendorTarget,
      headers: signed.headers,
      body: String(vendorRequest().body),
    };
    const verdict = verifySigV4(request, key, { now: day, ...scope });
    assert.equal(verdict.ok, true, JSON.stringify(verdict));
  });

  void test(`the vendor's signer, query form, ${kind} credentials`, async () => {
    const original = vendorRequest();
    const signed = await vendorSigner(token).presign(original, { signingDate: new Date(day), expiresIn: 60 });
    const auth = Object.entries(signed.query ?? {})
      .filter(([name]) => name.startsWith("X-Amz-"))
      .map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`);
    const request = {
      method: "POST",
      path: `${vendorTarget}&${auth.join("&")}`,
      headers: signed.headers,
      body: String(original.body),
    };
    const verdict = verifySigV4(request, key, { now: day + 60_000, ...scope });
    assert.equal(verdict.ok, true, JSON.stringify(verdict));
  });

  void test(`our signature is the one that the vendor's signer makes, ${kind} credentials`, async () => {
    const original = vendorRequest();
    delete original.headers["x-thing"];
    const request: SigV4Request = {
      method: "POST",
      path: vendorTarget,
      headers: original.headers,
      body: String(original.body),
    };
    const credentials = {
      accessKeyId: "AKIDEXAMPLE",
      secretAccessKey: ownSecret,
      sessionToken: token === undefined ? undefined : new Secret(token),
    };
    const ours = signSigV4(request, credentials, scope, day);
    const theirs = await vendorSigner(token).sign(original, { signingDate: new Date(day) });
    assert.deepEqual({ ...original.headers, ...ours }, theirs.headers);
    const back = verifySigV4({ ...request, headers: { ...request.headers, ...ours } }, key, {
      now: day,
      ...scope,
    });
    assert.equal(back.ok, true);
  });
}

void test("AWS test suite: paths are signed in their normal form", () => {
  // get-relative, get-relative-relative, get-slash, get-slash-dot-slash, get-slash-pointless-dot, get-slashes
  assert.equal(canonicalPath("/example/.."), "/");
  assert.equal(canonicalPath("/example1/example2/../.."), "/");
  assert.equal(canonicalPath("//"), "/");
  assert.equal(canonicalPath("/./"), "/");
  assert.equal(canonicalPath("/./example"), "/example");
  assert.equal(canonicalPath("//example//"), "/example/");
});

void test("UNSIGNED-PAYLOAD is accepted only where the options allow it", async () => {
  const original = vendorRequest();
  original.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD";
  const signed = await vendorSigner().sign(original, { signingDate: new Date(day) });
  const request = { method: "POST", path: vendorTarget, headers: signed.headers, body: "anything" };
  const key = only({ secretAccessKey: ownSecret });
  assert.equal(verifySigV4(request, key, { now: day, allowUnsignedPayload: true }).ok, true);
  const verdict = verifySigV4(request, key, { now: day });
  assert.ok(!verdict.ok);
  assert.equal(verdict.reason, "body");
});

void test("the standard Date header serves in place of X-Amz-Date, if it is signed", () => {
  const date = new Date(day).toUTCString();
  const keys = only({ secretAccessKey: ownSecret });
  const full = { ...scope, date: "20260102" };
  const verdictFor = (names: readonly ("date" | "host")[]) => {
    const plain = { date, host: "ec2.test" };
    const canonical = canonicalRequest({
      method: "POST",
      path: "/",
      query: "",
      headers: names.map((name) => [name, plain[name]] as const),
      payloadHash: bodyHash(""),
    });
    const proof = signature(ownSecret, full, "20260102T030405Z", canonical).toString("hex");
    const authorization = `AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/${scopeText(full)}, SignedHeaders=${names.join(";")}, Signature=${proof}`;
    return verifySigV4({ method: "POST", path: "/", headers: { ...plain, authorization }, body: "" }, keys, {
      now: day,
    });
  };
  assert.equal(verdictFor(["date", "host"]).ok, true);
  const unsigned = verdictFor(["host"]);
  assert.ok(!unsigned.ok);
  assert.equal(unsigned.code, "SignatureDoesNotMatch");
});
