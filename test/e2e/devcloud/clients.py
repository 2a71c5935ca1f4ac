"""What boto3 makes of devcloud: waiters, paginators and error codes. Prints one JSON object."""
import base64
import json
import sys

import boto3
from botocore.exceptions import ClientError

endpoint = sys.argv[1]
ec2 = boto3.client("ec2", endpoint_url=endpoint, region_name="us-east-1")
sts = boto3.client("sts", endpoint_url=endpoint, region_name="us-east-1")
codes = {}
quick = {"Delay": 1, "MaxAttempts": 30}
image = "ami-0a1b2c3d4e5f60001"
absent = "0123456789abcdef0"


def code(name, call, **arguments):
    try:
        call(**arguments)
        codes[name] = None
    except ClientError as error:
        codes[name] = error.response["Error"]["Code"]


vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
ec2.get_waiter("vpc_available").wait(VpcIds=[vpc], WaiterConfig=quick)
subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24", AvailabilityZone="us-east-1a")["Subnet"]["SubnetId"]
group = ec2.create_security_group(GroupName="web", Description="web", VpcId=vpc)["GroupId"]
permission = [{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 81, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=permission)
key = ec2.create_key_pair(KeyName="k", KeyType="ed25519")
public = ec2.describe_key_pairs(IncludePublicKey=True)["KeyPairs"][0]["PublicKey"]
launch = dict(ImageId=image, MinCount=7, MaxCount=7, InstanceType="t3.micro", SubnetId=subnet, SecurityGroupIds=[group],
              KeyName="k", ClientToken="once")
launch["TagSpecifications"] = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web-a"}]}]
ids = [i["InstanceId"] for i in ec2.run_instances(**launch)["Instances"]]
again = [i["InstanceId"] for i in ec2.run_instances(**launch)["Instances"]]
ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig=quick)
ec2.get_waiter("instance_status_ok").wait(InstanceIds=ids, WaiterConfig=quick)
pages = list(ec2.get_paginator("describe_instances").paginate(
    Filters=[{"Name": "tag:Name", "Values": ["web-*"]}, {"Name": "vpc-id", "Values": [vpc]}],
    PaginationConfig={"PageSize": 5}))
listed = [i["InstanceId"] for p in pages for r in p["Reservations"] for i in r["Instances"]]
volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=10, VolumeType="gp3")["VolumeId"]
ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig=quick)
ec2.attach_volume(VolumeId=volume, InstanceId=ids[0], Device="/dev/sdf")
ec2.get_waiter("volume_in_use").wait(VolumeIds=[volume], WaiterConfig=quick)

code("duplicateGroup", ec2.create_security_group, GroupName="web", Description="web", VpcId=vpc)
code("duplicateRule", ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=permission)
code("duplicateKey", ec2.create_key_pair, KeyName="k")
code("vpcInUse", ec2.delete_vpc, VpcId=vpc)
code("groupInUse", ec2.delete_security_group, GroupId=group)
code("volumeInUse", ec2.delete_volume, VolumeId=volume)
code("subnetConflict", ec2.create_subnet, VpcId=vpc, CidrBlock="10.0.1.0/25")
code("subnetRange", ec2.create_subnet, VpcId=vpc, CidrBlock="10.1.0.0/24")
code("vpcRange", ec2.create_vpc, CidrBlock="10.0.0.0/8")
code("noInstance", ec2.describe_instances, InstanceIds=["i-" + absent])
code("badInstance", ec2.describe_instances, InstanceIds=["i-1"])
code("noVpc", ec2.describe_vpcs, VpcIds=["vpc-" + absent])
code("noSubnet", ec2.describe_subnets, SubnetIds=["subnet-" + absent])
code("noGroup", ec2.describe_security_groups, GroupIds=["sg-" + absent])
code("noVolume", ec2.describe_volumes, VolumeIds=["vol-" + absent])
code("noAddress", ec2.release_address, AllocationId="eipalloc-" + absent)
code("noImage", ec2.run_instances, ImageId="ami-" + absent, MinCount=1, MaxCount=1)
code("noType", ec2.run_instances, ImageId=image, MinCount=1, MaxCount=1, InstanceType="x1.none")
code("noKey", ec2.run_instances, ImageId=image, MinCount=1, MaxCount=1, KeyName="none")
code("otherToken", ec2.run_instances, **{**launch, "InstanceType": "t3.small"})
code("dryRun", ec2.run_instances, **{**launch, "DryRun": True, "ClientToken": "dry"})
code("noFilter", ec2.describe_instances, Filters=[{"Name": "nope", "Values": ["x"]}])
code("runningType", ec2.modify_instance_attribute, InstanceId=ids[0], InstanceType={"Value": "m5.large"})
code("unserved", ec2.create_flow_logs, ResourceIds=[vpc], ResourceType="VPC")

ec2.stop_instances(InstanceIds=ids[:1])
ec2.get_waiter("instance_stopped").wait(InstanceIds=ids[:1], WaiterConfig=quick)
ec2.modify_instance_attribute(InstanceId=ids[0], InstanceType={"Value": "m5.large"})
ec2.modify_instance_attribute(InstanceId=ids[0], UserData={"Value": b"#!/bin/sh\n"})
data = ec2.describe_instance_attribute(InstanceId=ids[0], Attribute="userData")["UserData"]["Value"]
ec2.terminate_instances(InstanceIds=ids)
ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig=quick)
code("startTerminated", ec2.start_instances, InstanceIds=ids[:1])
ec2.delete_volume(VolumeId=volume)
ec2.delete_security_group(GroupId=group)
ec2.delete_subnet(SubnetId=subnet)
ec2.delete_vpc(VpcId=vpc)
ec2.delete_key_pair(KeyName="k")
print(json.dumps({
    "account": sts.get_caller_identity()["Account"],
    "idempotent": ids == again,
    "pages": [sum(len(r["Instances"]) for r in p["Reservations"]) for p in pages],
    "complete": sorted(listed) == sorted(ids),
    "key": [key["KeyMaterial"].split("\n")[0], public.split(" ")[0]],
    "userData": base64.b64decode(data).decode(),
    "codes": codes,
}))
