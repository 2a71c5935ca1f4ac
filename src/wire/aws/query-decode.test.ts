import assert from "node:assert/strict";
import { test } from "node:test";
import { AwsProtocolError } from "./aws-protocol-error.ts";
import { type DecodeOptions, decodeQueryRequest } from "./query-decode.ts";
import { encodeQueryRequest } from "./query-encode.ts";
import { peekAction, queryLimits } from "./query-parameters.ts";
import { awsService } from "./service-model.ts";

const ec2 = await awsService("ec2");
const autoscaling = await awsService("autoscaling");
const elb = await awsService("elasticloadbalancing");

function ec2Input(body: string | URLSearchParams, options?: DecodeOptions): unknown {
  return decodeQueryRequest(ec2, body, options).input;
}

function refusal(body: string, service = ec2): string {
  try {
    decodeQueryRequest(service, body);
  } catch (error) {
    assert.ok(error instanceof AwsProtocolError, String(error));
    return `${error.status} ${error.code}: ${error.message}`;
  }
  return assert.fail("it was accepted");
}

const run =
  "Action=RunInstances&Version=2016-11-15&ImageId=ami-1&MinCount=1&MaxCount=2&SecurityGroupId.2=sg-b&SecurityGroupId.1=sg-a" +
  "&BlockDeviceMapping.1.Ebs.VolumeSize=20&BlockDeviceMapping.1.DeviceName=%2Fdev%2Fsda1&EbsOptimized=true" +
  "&TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=Name&TagSpecification.1.Tag.1.Value=web+1";

void test("EC2: a request as tools send it", () => {
  const expected = {
    ImageId: "ami-1",
    MinCount: 1,
    MaxCount: 2,
    EbsOptimized: true,
    SecurityGroupIds: ["sg-a", "sg-b"],
    BlockDeviceMappings: [{ Ebs: { VolumeSize: 20 }, DeviceName: "/dev/sda1" }],
    TagSpecifications: [{ ResourceType: "instance", Tags: [{ Key: "Name", Value: "web 1" }] }],
  };
  assert.deepEqual(ec2Input(run), expected);
  assert.deepEqual(ec2Input(new URLSearchParams(run)), expected);
});

void test("lists keep the order of their indexes, whatever gaps there are", () => {
  const body = "Action=DescribeInstances&InstanceId.10=c&InstanceId.2=b&InstanceId.1=a";
  assert.deepEqual(ec2Input(body), { InstanceIds: ["a", "b", "c"] });
});

void test("times become ISO text", () => {
  const time = (text: string) => ec2Input(`Action=RequestSpotInstances&ValidUntil=${text}`);
  assert.deepEqual(time("2026-01-02T03:04:05Z"), { ValidUntil: "2026-01-02T03:04:05.000Z" });
  assert.deepEqual(time("2026-01-02T03%3A04%3A05.250%2B01%3A00"), { ValidUntil: "2026-01-02T02:04:05.250Z" });
  assert.deepEqual(time("2026-01-02T03:04:05"), { ValidUntil: "2026-01-02T03:04:05.000Z" });
});

void test("awsQuery: lists with their member element, and empty ones", () => {
  const body =
    "Action=DescribeAutoScalingGroups&AutoScalingGroupNames.member.1=a&AutoScalingGroupNames.member.2=b";
  assert.deepEqual(decodeQueryRequest(autoscaling, body).input, { AutoScalingGroupNames: ["a", "b"] });
  const empty = "Action=DescribeAutoScalingGroups&AutoScalingGroupNames=";
  assert.deepEqual(decodeQueryRequest(autoscaling, empty).input, { AutoScalingGroupNames: [] });
  const operation = elb.operations.get("CreateRule");
  assert.ok(operation);
  const input = { Conditions: [{ Field: "path-pattern", Values: ["/a*"] }], Actions: [], Priority: 5 };
  assert.deepEqual(decodeQueryRequest(elb, encodeQueryRequest(elb, operation, input)).input, input);
});

void test("maps: by entry, without a prototype, each key once and whole", () => {
  const path = "Actions.member.1.AuthenticateOidcConfig.AuthenticationRequestExtraParams.entry";
  const input = (parts: string) => decodeQueryRequest(elb, `Action=CreateRule&${parts}`).input;
  const decoded = input(`${path}.2.key=b&${path}.2.value=y&${path}.1.value=x&${path}.1.key=__proto__`);
  assert.equal(
    JSON.stringify(decoded),
    '{"Actions":[{"AuthenticateOidcConfig":{"AuthenticationRequestExtraParams":{"b":"y","__proto__":"x"}}}]}',
  );
  const refused = (parts: string) => refusal(`Action=CreateRule&${parts}`, elb);
  assert.match(refused(`${path}.1.key=a`), /^400 MalformedQueryString: .*lacks/);
  assert.match(refused(`${path}.1.value=a`), /^400 MalformedQueryString: .*lacks/);
  assert.match(
    refused(`${path}.1.key=a&${path}.1.value=&${path}.2.key=a&${path}.2.value=`),
    /more than once/,
  );
  assert.match(refused(`${path}.1.other=a`), /UnknownParameter/);
});

void test("refusals are AWS's own", () => {
  assert.match(refusal("Version=2016-11-15"), /^400 MissingAction: /);
  assert.match(refusal(""), /^400 MissingAction: /);
  assert.match(refusal("Action=RunAway"), /^400 InvalidAction: The action RunAway is not valid/);
  assert.match(refusal("Action=__proto__"), /^400 InvalidAction: /);
  assert.match(
    refusal("Action=RunInstances&Foo=1"),
    /^400 UnknownParameter: The parameter Foo is not recognized/,
  );
  assert.match(refusal("Action=RunInstances&__proto__.polluted=1"), /^400 UnknownParameter: /);
  assert.match(refusal("Action=RunInstances&SecurityGroupId.member.1=1"), /^400 InvalidParameterValue: /);
  assert.match(
    refusal("Action=DescribeAutoScalingGroups&AutoScalingGroupNames.1=a", autoscaling),
    /UnknownParameter/,
  );
  for (const index of ["0", "-1", "01", "1e3", "", "x", "999999999", "100001", "__proto__", "length"]) {
    assert.match(
      refusal(`Action=RunInstances&SecurityGroupId.${index}=a`),
      /^400 InvalidParameterValue: .*index/,
    );
  }
  assert.match(
    refusal("Action=RunInstances&MinCount=one"),
    /^400 InvalidParameterValue: Invalid value 'one' for MinCount/,
  );
  for (const number of ["", "0x10", "1_000", "NaN", "Infinity", "9007199254740993", "1e999"]) {
    assert.match(refusal(`Action=RunInstances&MinCount=${number}`), /^400 InvalidParameterValue: /);
  }
  assert.match(refusal("Action=RunInstances&EbsOptimized=yes"), /^400 InvalidParameterValue: /);
  assert.match(refusal("Action=RequestSpotInstances&ValidUntil=tomorrow"), /^400 InvalidParameterValue: /);
  assert.match(refusal("Action=RunInstances&Placement=x"), /^400 InvalidParameterValue: /);
  assert.match(refusal("Action=RunInstances&SecurityGroupId=x"), /^400 InvalidParameterValue: /);
  assert.match(refusal("Action=RunInstances&ImageId.1=x"), /^400 UnknownParameter: /);
  assert.match(refusal("Action=RunInstances&ImageId=%zz"), /^400 MalformedQueryString: /);
  assert.match(refusal("Action=RunInstances&ImageId=%ff"), /^400 MalformedQueryString: /);
  assert.match(
    refusal("Action=RunInstances&ImageId=a&ImageId=a"),
    /^400 MalformedQueryString: .*more than once/,
  );
  assert.match(
    refusal("Action=RunInstances&Action=RunInstances"),
    /^400 MalformedQueryString: .*more than once/,
  );
  assert.match(
    refusal(`Action=RunInstances${"&a=".repeat(queryLimits.parameters + 1)}`),
    /MalformedQueryString/,
  );
  assert.match(refusal("x".repeat(queryLimits.bodyChars + 1)), /^413 RequestEntityTooLarge: /);
});

void test("a forwarder gets unknown parameters back", () => {
  const body = "Action=RunInstances&ImageId=a&New.1.Thing=x&__proto__=y&Placement.Newer=z";
  const { input, unknown } = decodeQueryRequest(ec2, body, { unknownParameters: "keep" });
  assert.deepEqual(unknown["New.1.Thing"], "x");
  assert.deepEqual(Object.keys(unknown), ["New.1.Thing", "__proto__", "Placement.Newer"]);
  assert.deepEqual(input["ImageId"], "a");
  assert.equal(Object.getPrototypeOf(unknown), null);
});

void test("peekAction sees the one Action there is, and nothing in a doubtful request", () => {
  assert.equal(peekAction(run), "RunInstances");
  assert.equal(peekAction("Version=1&Action=DescribeInstances"), "DescribeInstances");
  assert.equal(peekAction("Version=1&%41ction=Describe%49nstances"), "DescribeInstances");
  assert.equal(peekAction(""), undefined);
  assert.equal(peekAction("Action="), undefined);
  assert.equal(peekAction("MyAction=RunInstances&Actions=b"), undefined);
  assert.equal(peekAction("Action=DescribeInstances&Action=TerminateInstances"), undefined);
  assert.equal(peekAction("Action=DescribeInstances&%41ction=TerminateInstances"), undefined);
  assert.equal(peekAction("Action=DescribeInstances&Action"), undefined);
  assert.equal(peekAction("Action=%zz"), undefined);
});

void test("the client side refuses what the operation does not have", () => {
  const operation = ec2.operations.get("RunInstances");
  assert.ok(operation);
  const encode = (input: object) => () => encodeQueryRequest(ec2, operation, input);
  assert.throws(encode({ Nope: 1 }), { code: "UnknownParameter", message: /Nope/ });
  assert.throws(encode({ MinCount: "1" }), {
    code: "InvalidParameterValue",
    message: /MinCount must be a number/,
  });
  assert.throws(encode({ SecurityGroupIds: "sg" }), { code: "InvalidParameterValue" });
  assert.equal(
    encode({ ImageId: undefined, SecurityGroupIds: [], KeyName: "a b*" })(),
    "Action=RunInstances&Version=2016-11-15&KeyName=a%20b%2A",
  );
});
