import assert from "node:assert/strict";
import { test } from "node:test";
import { awsService } from "./service-model.ts";
import { decodeQueryError, decodeQueryResponse } from "./xml-decode.ts";
import { encodeQueryError, encodeQueryResponse, escapeXml } from "./xml-encode.ts";
import { xmlLimits } from "./xml-reader.ts";

const ec2 = await awsService("ec2");
const elb = await awsService("elasticloadbalancing");
const describe = ec2.operations.get("DescribeInstances");
const balancers = elb.operations.get("DescribeLoadBalancers");
assert.ok(describe && balancers);

function decoded(xml: string): unknown {
  assert.ok(describe);
  return decodeQueryResponse(ec2, describe, xml);
}

function inItem(inner: string): string {
  return `<DescribeInstancesResponse><reservationSet><item>${inner}</item></reservationSet></DescribeInstancesResponse>`;
}

void test("documents have each protocol's own frame", () => {
  const output = {
    Reservations: [{ ReservationId: "r-1", Instances: [{ LaunchTime: new Date(0) }] }],
    NextToken: "t",
  };
  assert.equal(
    encodeQueryResponse(ec2, describe, output, "id"),
    `<?xml version="1.0" encoding="UTF-8"?>\n<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>id</requestId><nextToken>t</nextToken><reservationSet><item><reservationId>r-1</reservationId><instancesSet><item><launchTime>1970-01-01T00:00:00.000Z</launchTime></item></instancesSet></item></reservationSet></DescribeInstancesResponse>`,
  );
  assert.equal(
    encodeQueryResponse(elb, balancers, { LoadBalancers: [] }, "id"),
    `<?xml version="1.0" encoding="UTF-8"?>\n<DescribeLoadBalancersResponse xmlns="http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/"><DescribeLoadBalancersResult><LoadBalancers></LoadBalancers></DescribeLoadBalancersResult><ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></DescribeLoadBalancersResponse>`,
  );
  const error = { code: "A", message: "m", requestId: "id", status: 503 };
  assert.equal(
    encodeQueryError(ec2, error),
    `<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>A</Code><Message>m</Message></Error></Errors><RequestID>id</RequestID></Response>`,
  );
  assert.match(
    encodeQueryError(elb, error),
    /<ErrorResponse xmlns=.*<Error><Type>Receiver<\/Type><Code>A<\/Code>/,
  );
  assert.match(encodeQueryError(elb, { ...error, status: 400 }), /<Type>Sender<\/Type>/);
});

void test("text survives, save what XML cannot hold", () => {
  const text = "&<>\"' \t\r\n]]> é 𝒳 😀 ";
  const back = decoded(encodeQueryResponse(ec2, describe, { NextToken: text }, "id"));
  assert.deepEqual(back, { NextToken: text });
  assert.equal(escapeXml("a\u0000b\u001bc\ud800d\udc00e\ufffff"), "a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf");
  assert.equal(escapeXml("𝒳"), "𝒳");
});

void test("an output that the schema does not allow is a fault of ours", () => {
  const wrong = () => encodeQueryResponse(ec2, describe, { Reservations: "x" }, "id");
  assert.throws(wrong, { name: "AwsProtocolError", status: 500, message: /Reservations must be a list/ });
});

void test("answers of other makes: comments, CDATA, attributes, unknown and empty elements", () => {
  const xml = `\ufeff<?xml version="1.0"?>\n<!-- made elsewhere --> <DescribeInstancesResponse xmlns='x' a = "b>c">
    <newThing><reservationSet/><deep><er/></deep></newThing>
    <reservationSet >
      <item><reservationId><![CDATA[r<1]]>&amp;&#65;&#x42;<!-- c -->!</reservationId><instancesSet><item>
        <launchTime/><amiLaunchIndex/><ebsOptimized></ebsOptimized><stateReason/><tagSet/><keyName/>
      </item></instancesSet></item><other/>
    </reservationSet>
  </DescribeInstancesResponse>\n<!-- end -->`;
  assert.deepEqual(decoded(xml), {
    Reservations: [{ ReservationId: "r<1&AB!", Instances: [{ StateReason: {}, Tags: [], KeyName: "" }] }],
  });
});

void test("what is not the answer is refused, by name", () => {
  const refused: [string, RegExp][] = [
    ["", /no root/],
    ["x", /no root/],
    ["<a/>", /root is <a>/],
    ["<DescribeInstancesResponse>", /ends inside/],
    ["<DescribeInstancesResponse></x>", /not closed/],
    ["<DescribeInstancesResponse/><b/>", /follows the root/],
    ["<!DOCTYPE a [<!ENTITY b 'c'>]><DescribeInstancesResponse/>", /start tag/],
    [inItem("<reservationId>&b;</reservationId>"), /unknown entity/],
    [inItem("<reservationId>a & b</reservationId>"), /bare &/],
    [inItem("<reservationId>&#xd800;</reservationId>"), /unknown entity/],
    [inItem("<reservationId>&#0;</reservationId>"), /unknown entity/],
    [inItem("<reservationId><b/></reservationId>"), /where text is expected/],
    [inItem("<reservationId>a</reservationId><reservationId>b</reservationId>"), /twice/],
    [inItem("<instancesSet><item><amiLaunchIndex>x</amiLaunchIndex></item></instancesSet>"), /not a number/],
    [inItem("<instancesSet><item><launchTime>x</launchTime></item></instancesSet>"), /not a time/],
    [inItem("<instancesSet><item><ebsOptimized>1</ebsOptimized></item></instancesSet>"), /not true or false/],
    [inItem("<a b=c/>"), /start tag/],
    [inItem("<a b='<'/>"), /start tag/],
    [inItem("<![CDATA[x"), /missing/],
    [inItem("<a>".repeat(xmlLimits.depth)), /inside each other/],
  ];
  for (const [xml, why] of refused) {
    assert.throws(() => decoded(xml), {
      name: "AwsProtocolError",
      code: "MalformedResponse",
      status: 502,
      message: why,
    });
  }
});

void test("hostile input costs no more than its length", () => {
  const long = 4_000_000;
  for (const xml of [
    `<a${" ".repeat(long)}`,
    `<a${" b='c'".repeat(long / 8)}`,
    inItem(`<reservationId>${"&".repeat(long)}</reservationId>`),
    inItem(`<reservationId>${"&amp;".repeat(long / 5)}`),
    inItem("<b>x</b>".repeat(long / 8)),
    inItem(`<!--${"-".repeat(long)}`),
  ]) {
    const start = process.hrtime.bigint();
    try {
      decoded(xml);
    } catch (error) {
      assert.equal((error as Error).name, "AwsProtocolError");
    }
    // Quadratic time would be hours for these.
    assert.ok(process.hrtime.bigint() - start < 20_000_000_000n);
  }
});

void test("maps have no prototype to reach", () => {
  const operation = elb.operations.get("DescribeRules");
  assert.ok(operation);
  const params = JSON.parse('{"__proto__":"x","constructor":"y"}');
  const output = {
    Rules: [{ Actions: [{ AuthenticateOidcConfig: { AuthenticationRequestExtraParams: params } }] }],
  };
  const back = JSON.stringify(
    decodeQueryResponse(elb, operation, encodeQueryResponse(elb, operation, output, "id")),
  );
  assert.equal(back, JSON.stringify(output));
  assert.equal(Object.hasOwn(Object.prototype, "x"), false);
});

void test("errors of either protocol, and bodies that are none", () => {
  const expected = { code: "A", message: "m", requestId: "r" };
  const read = (body: string) => decodeQueryError(Buffer.from(body));
  const error = "<Error><Type>Sender</Type><Code> A </Code><Message>m</Message></Error>";
  assert.deepEqual(read(`<Response><Errors>${error}</Errors><RequestID>r</RequestID></Response>`), expected);
  assert.deepEqual(read(`<ErrorResponse>${error}<RequestId>r</RequestId></ErrorResponse>`), expected);
  assert.deepEqual(read("<Error><Code>A</Code><RequestId>r</RequestId></Error>"), {
    ...expected,
    message: "",
  });
  for (const body of [
    "",
    "Bad Gateway",
    '{"message":"x"}',
    "<html><head><title>502</title></head><body><hr>nginx</body></html>",
    "<html><body><Error><Code>A</Code></Error></body></html>",
    "<Response><Errors><Error><Code>A</Code>",
    "<Response><Errors/></Response>",
    "<Response><Errors><Error><Code/></Error></Errors></Response>",
    "\u0000\u0001",
    `<Error><Code>A</Code>${" ".repeat(300_000)}</Error>`,
  ]) {
    assert.equal(read(body), undefined, body.slice(0, 60));
  }
  assert.equal(decodeQueryError(Uint8Array.from([0xff, 0xfe, 0x3c, 0x80])), undefined);
});
