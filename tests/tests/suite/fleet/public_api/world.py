"""The service under test as a Python program meets it: the aws CLI, boto3, and agents that do what a test says.

The environment has AWS_ENDPOINT_URL_CODEDEPLOY, an operator's keys, and in CONTROLLER and CONTROLLER_DATA the program
that administers the service and the service's folder.
"""

import contextlib
import datetime
import functools
import io
import json
import os
import shlex
import subprocess
import time
import unittest.mock
import urllib.request

import boto3
from awscli.clidriver import create_clidriver
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.parsers import RpcV2CBORParser

# The protocols of the public API, as botocore calls them.
JSON, CBOR = "json", "smithy-rpc-v2-cbor"

ENDPOINT = os.environ["AWS_ENDPOINT_URL_CODEDEPLOY"]
REGION = os.environ["AWS_DEFAULT_REGION"]
# Some commands leave a file where they are called.
os.chdir(os.environ["HOME"])

ROLE = "arn:aws:iam::123456789012:role/cd"


# What any operation may be refused with.
COMMON = {"AccessDenied", "InvalidSignature", "Serialization", "UnknownOperation", "UnrecognizedClient"}

# A role that is none would be refused with InvalidRole, at which Terraform tries again for minutes.
BESIDE_MODEL = {"UpdateDeploymentGroup": {"InvalidInput"}}


def hold_against_model(http_response, parsed, model, **_):
    """The answer has no member, no null and no error that AWS's model of the operation does not have."""
    if http_response.status_code != 200:
        name = parsed["Error"]["Code"].removesuffix("Exception")
        modelled = {shape.name.removesuffix("Exception") for shape in model.error_shapes}
        assert name in modelled | COMMON | BESIDE_MODEL.get(model.name, set()), f"{model.name} was refused with {name}: {parsed}"
        assert parsed["Error"]["Message"] and http_response.headers["x-amzn-requestid"], parsed
    elif http_response.content:
        conform(decoded(http_response), model.output_shape, model.name)
    else:
        assert not (model.output_shape and model.output_shape.members), f"{model.name} answered nothing"


def decoded(http_response):
    """An answer's body as it is, without what botocore's parsers make of it for their callers."""
    if http_response.headers.get("smithy-protocol") != "rpc-v2-cbor":
        return json.loads(http_response.content)
    parser = RpcV2CBORParser()
    stream = parser.get_peekable_stream_from_bytes(http_response.content)
    value = parser.parse_data_item(stream)
    assert stream.read() == b"", http_response.content
    return value


def conform(value, shape, where):
    if shape.type_name == "structure":
        for name, member in value.items():
            assert name in shape.members, f"{where} has no member {name}: {value}"
            conform(member, shape.members[name], f"{where}.{name}")
    elif shape.type_name == "list":
        for item in value:
            conform(item, shape.member, f"{where}[]")
    else:
        # In CBOR a time is marked as one.
        kinds = {"string": str, "boolean": bool, "integer": int, "long": int, "timestamp": (int, float, datetime.datetime)}
        assert isinstance(value, kinds[shape.type_name]), f"{where}: {value!r}"


class Answer:
    def __init__(self, line, code, out, err):
        self.line, self.code, self.out, self.err = line, code, out, err

    def __str__(self):
        return f"aws deploy {self.line}\n-> {self.code}\n{self.out}{self.err}"


@functools.cache
def cli(*_):
    """The real CLI in this process: starting it anew for every line would take most of the test's time."""
    driver = create_clidriver()
    driver.session.register("after-call.codedeploy", hold_against_model)
    return driver


def aws(line):
    driver = cli(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = driver.main(["deploy", *shlex.split(line)])
        except SystemExit as end:
            code = end.code
    return Answer(line, code or 0, out.getvalue(), err.getvalue())


def ok(line):
    """What a call prints, as JSON; nothing for a call that prints nothing."""
    answer = aws(line)
    assert answer.code == 0, answer
    return json.loads(answer.out) if answer.out.strip() else None


def refused(line, name, *words):
    """The call is refused by this name, with these words in the message."""
    answer = aws(line)
    assert answer.code == 255, answer
    assert f"({name}Exception)" in answer.err, answer
    assert all(word in answer.err for word in words), answer
    return answer.err


def client(protocol=JSON, endpoint=ENDPOINT, **config):
    config = Config(retries={"max_attempts": 0}, **config)
    # Of the protocols of a model, botocore takes the first that is in its own list.
    with unittest.mock.patch("botocore.model.PRIORITY_ORDERED_SUPPORTED_PROTOCOLS", (protocol,)):
        made = boto3.client("codedeploy", config=config, endpoint_url=endpoint)
    made.meta.events.register("after-call.codedeploy", hold_against_model)
    return made


def until(what, probe):
    """Waits until `probe` gives something."""
    deadline = time.monotonic() + 60
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < deadline, f"in vain waited for {what}"
        time.sleep(0.02)


def administer(*arguments):
    command = [os.environ["CONTROLLER"], *arguments, "--data-dir", os.environ["CONTROLLER_DATA"]]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


class Host:
    """A host with an agent that does what it is told."""

    def __init__(self, name, *tags):
        added = administer("host", "add", name, *[word for tag in tags for word in ("--tag", tag)], "--json")
        self.name, self.identifier = name, added["host_identifier"]
        self.credentials = Credentials(added["access_key_id"], added["secret_access_key"])

    def call(self, operation, **members):
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"CodeDeployCommandService_v20141006.{operation}",
        }
        request = AWSRequest("POST", ENDPOINT + "/", headers=headers, data=json.dumps(members))
        SigV4Auth(self.credentials, "codedeploy-commands", REGION).add_auth(request)
        request = urllib.request.Request(ENDPOINT + "/", request.data.encode(), dict(request.headers.items()))
        with urllib.request.urlopen(request, timeout=90) as response:
            return json.loads(response.read() or b"{}")

    def take(self):
        """Takes the next command and acknowledges it; gives the event's name and its end."""
        command = until("a command", lambda: self.call("PollHostCommand", HostIdentifier=self.identifier).get("HostCommand"))
        identifier = command["HostCommandIdentifier"]
        self.call("PutHostCommandAcknowledgement", HostCommandIdentifier=identifier)

        def end(status="Succeeded"):
            code = 0 if status == "Succeeded" else 4
            payload = {"error_code": code, "script_name": "", "message": status, "log": ""}
            diagnostics = {"Format": "JSON", "Payload": json.dumps(payload)}
            self.call("PutHostCommandComplete", HostCommandIdentifier=identifier, CommandStatus=status, Diagnostics=diagnostics)

        return command["CommandName"], end

    def run(self, fail=(), last="ValidateService"):
        """Performs commands until `last`, or until one of `fail`, which it fails, unless that is ApplicationStop."""
        while True:
            event, end = self.take()
            end("Failed" if event in fail else "Succeeded")
            if event == last or (event in fail and event != "ApplicationStop"):
                return
