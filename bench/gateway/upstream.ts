// The cloud of the gateway bench: answers like EC2 without doing anything, so that only the way there is measured.
import { createServer } from "node:http";
import { announce } from "./announce.ts";

const instance = `<item><instanceId>i-0123456789abcdef0</instanceId><imageId>ami-0123456789abcdef0</imageId><instanceState><code>0</code><name>pending</name></instanceState><privateDnsName/><dnsName/><reason/><amiLaunchIndex>0</amiLaunchIndex><productCodes/><instanceType>t3.micro</instanceType><launchTime>2026-01-02T03:04:05.000Z</launchTime><placement><availabilityZone>eu-west-1a</availabilityZone><groupName/><tenancy>default</tenancy></placement><monitoring><state>disabled</state></monitoring><subnetId>subnet-0123456789abcdef0</subnetId><vpcId>vpc-0123456789abcdef0</vpcId><privateIpAddress>10.0.0.4</privateIpAddress><groupSet><item><groupId>sg-0123456789abcdef0</groupId><groupName>web</groupName></item></groupSet><architecture>x86_64</architecture><rootDeviceType>ebs</rootDeviceType><rootDeviceName>/dev/xvda</rootDeviceName><blockDeviceMapping/><virtualizationType>hvm</virtualizationType><tagSet><item><key>Name</key><value>web</value></item></tagSet><hypervisor>xen</hypervisor><networkInterfaceSet/><ebsOptimized>false</ebsOptimized></item>`;
const document = (action: string, members: string): string =>
  `<?xml version="1.0" encoding="UTF-8"?>\n<${action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>5f0c9a3e-0000-4000-8000-000000000000</requestId>${members}</${action}Response>`;

const reservation = `<reservationId>r-0123456789abcdef0</reservationId><ownerId>123456789012</ownerId><groupSet/><instancesSet>${instance}</instancesSet>`;
const run = Buffer.from(document("RunInstances", reservation));
const describe = Buffer.from(
  document("DescribeInstances", `<reservationSet><item>${reservation}</item></reservationSet>`),
);
const tenMiB = Buffer.from(
  document(
    "DescribeInstances",
    `<reservationSet>${`<item>${reservation}</item>`.repeat(Math.ceil((10 * 1024 * 1024) / (reservation.length + 13)))}</reservationSet>`,
  ),
);

const server = createServer((request, response) => {
  let body = "";
  request.setEncoding("latin1");
  request.on("data", (chunk: string) => {
    body += chunk;
  });
  request.on("end", () => {
    const answer = body.includes("Action=RunInstances")
      ? run
      : body.includes("Size=10MiB")
        ? tenMiB
        : describe;
    response.writeHead(200, {
      "content-type": "text/xml;charset=UTF-8",
      "content-length": answer.length,
      "x-amzn-requestid": "5f0c9a3e-0000-4000-8000-000000000000",
    });
    response.end(answer);
  });
});
server.keepAliveTimeout = 75_000;
await announce(server);
