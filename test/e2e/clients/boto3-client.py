"""boto3, told by JSON lines what to ask: one line in, one line out. Understood by boto3-client.ts."""
import base64
import datetime
import json
import os
import sys

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

target = json.loads(os.environ["BOTO3_TARGET"])
session = boto3.Session(
    aws_access_key_id=target["accessKeyId"],
    aws_secret_access_key=target["secretAccessKey"],
    region_name=target["region"],
)
config = Config(retries={"mode": "standard", "total_max_attempts": target["maxAttempts"]})
clients = {}


def client_of(service):
    if service not in clients:
        clients[service] = session.client(service, endpoint_url=target["url"], config=config)
    return clients[service]


def decoded(value):
    if isinstance(value, list):
        return [decoded(each) for each in value]
    if isinstance(value, dict):
        if "$bytes" in value:
            return base64.b64decode(value["$bytes"])
        return {name: decoded(each) for name, each in value.items()}
    return value


def plain(value):
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value)} in an answer")


def answer(request):
    client = client_of(request["service"])
    name = xform_name(request["operation"])
    inputs = decoded(request["input"])
    if request["act"] == "pages":
        paging = {"PageSize": request["pageSize"]}
        return {"pages": list(client.get_paginator(name).paginate(**inputs, PaginationConfig=paging))}
    if request["act"] == "wait":
        client.get_waiter(name).wait(**inputs, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
        return {}
    if request["act"] == "presign":
        url = client.generate_presigned_url(name, Params=inputs, ExpiresIn=60, HttpMethod=request["method"])
        return {"url": url}
    return getattr(client, name)(**inputs)


for line in sys.stdin:
    request = json.loads(line)
    try:
        answered = {"output": answer(request)}
    except ClientError as error:
        answered = {"error": {"kind": type(error).__name__, "text": str(error), "response": error.response}}
    except BotoCoreError as error:
        answered = {"error": {"kind": type(error).__name__, "text": str(error), "response": {}}}
    print(json.dumps(answered, default=plain), flush=True)
