"""Requests of both protocols made by hand, for what no client would send."""

import datetime
import json
import struct
import urllib.error
import urllib.request

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from world import CBOR, ENDPOINT, JSON, REGION

CREDENTIALS = boto3.session.Session().get_credentials()

# What is no structure, or not one only.
MALFORMED = {
    JSON: [b"[]", b"{", b"7", b'"x"', b"null", b"{} {}", b"\x00"],
    CBOR: [b"\x80", b"\xa1", b"\xbf", b"\x07", b"\x61x", b"\xf6", b"\xf7", b"\xff", b"\xa0\xa0", b"\xc1\xa0", b"{}"],
}


def request_of(protocol, operation):
    """The headers and the path of a request."""
    if protocol == CBOR:
        headers = {"Content-Type": "application/cbor", "Accept": "application/cbor", "Smithy-Protocol": "rpc-v2-cbor"}
        return headers, f"/service/CodeDeploy_20141006/operation/{operation}"
    return {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"CodeDeploy_20141006.{operation}"}, "/"


def send(protocol, operation, body, method="POST", path=None, **headers):
    """Signs and sends; gives status, headers and body. A header that is None is left out."""
    usual, usual_path = request_of(protocol, operation)
    headers = {**usual, **{name.replace("_", "-"): value for name, value in headers.items()}}
    headers = {name: value for name, value in headers.items() if value is not None}
    url = ENDPOINT + (path or usual_path)
    request = AWSRequest(method, url, headers=headers, data=body)
    SigV4Auth(CREDENTIALS, "codedeploy", REGION).add_auth(request)
    # urllib would give a body a type that was not asked for.
    opener = urllib.request.build_opener(Untyped)
    request = urllib.request.Request(url, body or None, dict(request.headers.items()), method=method)
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.headers, refusal.read()


class Untyped(urllib.request.HTTPHandler):
    def http_request(self, request):
        typed = request.has_header("Content-type")
        request = super().do_request_(request)
        if not typed:
            request.remove_header("Content-type")
        return request


def written(protocol, value):
    """A value as a body."""
    if protocol == CBOR:
        return item(value)
    return json.dumps(value, default=datetime.datetime.timestamp).encode()


def item(value):
    """A value as an item of CBOR (RFC 8949)."""
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", False: b"\xf4", True: b"\xf5"}[value]
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, datetime.datetime):
        return b"\xc1" + item(value.timestamp())
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(item, value))
    return head(5, len(value)) + b"".join(item(name) + item(member) for name, member in value.items())


def head(major, count):
    for size, (code, form) in enumerate([(24, "B"), (25, ">H"), (26, ">I"), (27, ">Q")]):
        if count < 24:
            return bytes([major << 5 | count])
        if count < 1 << 8 * 2**size:
            return bytes([major << 5 | code]) + struct.pack(form, count)
    raise AssertionError(count)
