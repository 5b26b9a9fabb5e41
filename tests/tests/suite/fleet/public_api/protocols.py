"""Both protocols of the public API: that clients are told the same by either, and what is special about CBOR."""

import datetime
import json
import re

import botocore.exceptions
from raw import item, send
from world import CBOR, ENDPOINT, JSON, ROLE, Host, client, until

clients = {protocol: client(protocol, parameter_validation=False) for protocol in (JSON, CBOR)}
model = clients[JSON].meta.service_model
methods = {operation: method for method, operation in clients[JSON].meta.method_to_api_mapping.items()}


def ask(protocol, operation, members):
    """What a client is told, an answer or a refusal."""
    try:
        answer = getattr(clients[protocol], methods[operation])(**members)
    except botocore.exceptions.ClientError as refusal:
        answer = refusal.response
        assert isinstance(refusal, getattr(clients[protocol].exceptions, answer["Error"]["Code"])), answer
    # Of an answer without a body, botocore reads no request id off CBOR.
    return {**answer, "ResponseMetadata": answer["ResponseMetadata"]["HTTPStatusCode"]}


class Story:
    """Every operation, on things of one name, by one protocol; whatever is read, is read by both and is the same."""

    def __init__(self, name, protocol):
        self.name, self.protocol = name, protocol
        self.transcript = []

    def __call__(self, operation, **members):
        answer = ask(self.protocol, operation, members)
        if operation.startswith(("Get", "List", "BatchGet")):
            for protocol in clients:
                assert ask(protocol, operation, members) == answer, (operation, members, answer)
        self.transcript.append((operation, json.loads(json.dumps(answer, default=self.time))))
        return answer

    @staticmethod
    def time(value):
        assert isinstance(value, datetime.datetime), value
        return f"<{type(value).__name__} {value.tzinfo}>"

    def retold(self):
        """The transcript without what differs from name to name."""
        text = json.dumps(self.transcript, indent=1)
        ids = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\bd-[A-Z0-9]{9}\b|(?<=_)[A-Za-z0-9]{10}\b"
        return re.sub(ids, "<id>", text.replace(self.name, "<name>"))


def tell(name, protocol):
    story = Story(name, protocol)
    host = Host(f"{name}-box", f"tier={name}")
    app, config, instance = {"applicationName": name}, {"deploymentConfigName": name}, {"instanceName": f"{name}-vm"}
    group = {**app, "deploymentGroupName": "web"}
    tag = {"Key": "tier", "Value": name}
    arn = {"ResourceArn": f"arn:aws:codedeploy:us-east-1:123456789012:application:{name}"}
    revision = {"revisionType": "S3", "s3Location": {"bucket": name, "key": "Ünï/app.zip", "bundleType": "zip", "eTag": "1"}}

    story("CreateApplication", **app, tags=[tag])
    story("CreateApplication", **app)
    story("CreateApplication", applicationName="x" * 101)
    story("GetApplication", **app)
    story("BatchGetApplications", applicationNames=[name])
    story("ListApplications")
    story("TagResource", **arn, Tags=[{"Key": "a", "Value": "b"}])
    story("ListTagsForResource", **arn)
    story("UntagResource", **arn, TagKeys=["a"])
    story("UpdateApplication", **app, newApplicationName=f"{name}2")
    story("UpdateApplication", applicationName=f"{name}2", newApplicationName=name)

    story("RegisterApplicationRevision", **app, revision=revision, description="first")
    story("GetApplicationRevision", **app, revision=revision)
    story("BatchGetApplicationRevisions", **app, revisions=[revision])
    story("ListApplicationRevisions", **app, sortBy="registerTime", sortOrder="descending", deployed="ignore")
    zonal = {"firstZoneMonitorDurationInSeconds": 2**40, "minimumHealthyHostsPerZone": {"type": "HOST_COUNT", "value": 300}}
    story("CreateDeploymentConfig", **config, minimumHealthyHosts={"type": "HOST_COUNT", "value": 0}, zonalConfig=zonal)
    story("CreateDeploymentConfig", **config, minimumHealthyHosts={"type": "HOST_COUNT", "value": -1})
    story("GetDeploymentConfig", **config)
    story("ListDeploymentConfigs")

    story("RegisterOnPremisesInstance", **instance, iamUserArn=f"arn:aws:iam::123456789012:user/{name}")
    story("AddTagsToOnPremisesInstances", tags=[tag], instanceNames=[f"{name}-vm"])
    story("RemoveTagsFromOnPremisesInstances", tags=[tag], instanceNames=[f"{name}-vm"])
    story("GetOnPremisesInstance", **instance)
    story("BatchGetOnPremisesInstances", instanceNames=[f"{name}-vm", host.name])
    story("ListOnPremisesInstances", tagFilters=[{**tag, "Type": "KEY_AND_VALUE"}], registrationStatus="Registered")
    story("DeregisterOnPremisesInstance", **instance)
    story("GetOnPremisesInstance", **instance)

    filters = {"onPremisesTagSet": {"onPremisesTagSetList": [[{**tag, "Type": "KEY_AND_VALUE"}]]}}
    story("CreateDeploymentGroup", **group, serviceRoleArn=ROLE, **config, **filters)
    rollback = {"autoRollbackConfiguration": {"enabled": True, "events": ["DEPLOYMENT_FAILURE"]}}
    story("UpdateDeploymentGroup", **app, currentDeploymentGroupName=group["deploymentGroupName"], **rollback)
    story("GetDeploymentGroup", **group)
    story("BatchGetDeploymentGroups", **app, deploymentGroupNames=[group["deploymentGroupName"], "none"])
    story("ListDeploymentGroups", **app)

    begun = datetime.datetime.now(datetime.timezone.utc)
    good = {"deploymentId": story("CreateDeployment", **group, revision=revision)["deploymentId"]}
    story("CreateDeployment", **group, revision=revision)
    story("ContinueDeployment", **good, deploymentWaitType="READY_WAIT")
    story("SkipWaitTimeForInstanceTermination", **good)
    story("PutLifecycleEventHookExecutionStatus", **good, lifecycleEventHookExecutionId="x", status="Succeeded")
    host.run()
    clients[protocol].get_waiter("deployment_successful").wait(**good, WaiterConfig={"Delay": 0, "MaxAttempts": 100})
    story("StopDeployment", **good)
    bad = {"deploymentId": story("CreateDeployment", **group, revision=revision, description="stopped")["deploymentId"]}
    until("its start", lambda: "startTime" in ask(JSON, "GetDeployment", bad)["deploymentInfo"])
    story("StopDeployment", **bad, autoRollbackEnabled=False)
    until("its end", lambda: "completeTime" in ask(JSON, "GetDeployment", bad)["deploymentInfo"])
    try:
        clients[protocol].get_waiter("deployment_successful").wait(**bad)
        raise AssertionError("a deployment that was stopped is not waited for")
    except botocore.exceptions.WaiterError as stopped:
        assert "Stopped" in str(stopped), stopped
    for deployment in (good, bad):
        story("GetDeployment", **deployment)
        story("ListDeploymentTargets", **deployment, targetFilters={"TargetStatus": ["Succeeded", "Skipped", "Failed"]})
        story("GetDeploymentTarget", **deployment, targetId=host.name)
        story("BatchGetDeploymentTargets", **deployment, targetIds=[host.name])
        story("ListDeploymentInstances", **deployment)
        story("GetDeploymentInstance", **deployment, instanceId=host.name)
        story("BatchGetDeploymentInstances", **deployment, instanceIds=[host.name])
    story("BatchGetDeployments", deploymentIds=[good["deploymentId"], bad["deploymentId"]])
    hour = datetime.timedelta(hours=1)
    for start, end, found in [(begun - hour, begun + hour, 2), (begun - 2 * hour, begun - hour, 0)]:
        # Whole seconds and fractions are sent in different forms.
        for start in (start, start.replace(microsecond=0)):
            listed = story("ListDeployments", **group, createTimeRange={"start": start, "end": end})
            assert len(listed["deployments"]) == found, listed

    story("ListGitHubAccountTokenNames")
    story("DeleteGitHubAccountToken", tokenName="none")
    story("DeleteResourcesByExternalId", externalId="none")
    story("DeleteDeploymentGroup", **group)
    story("DeleteDeploymentConfig", **config)
    story("DeleteApplication", **app)
    story("GetApplication", **app)
    assert {operation for operation, _ in story.transcript} == set(model.operation_names)
    return story.retold()


def stories():
    """By either protocol a client is told the same of everything it does."""
    told = [tell("plain", JSON), tell("terse", CBOR)]
    assert told[0] == told[1], told


def headers():
    """Where RPC v2 CBOR says what must be in a request, that is looked at; an answer has what it says."""
    app = item({"applicationName": "headers"})
    status, said, body = send(CBOR, "CreateApplication", app)
    assert status == 200 and body[0] & 0xE0 == 0xA0, (status, body)
    assert said["smithy-protocol"] == "rpc-v2-cbor" and said["content-type"] == "application/cbor", said
    # No output is no body and has no type; a structure without members has both.
    status, said, body = send(CBOR, "DeleteApplication", app)
    assert (status, body, said["content-type"], said["smithy-protocol"]) == (200, b"", None, "rpc-v2-cbor"), (said, body)
    status, said, body = send(CBOR, "DeleteResourcesByExternalId", b"\xa0")
    assert (status, body, said["content-type"]) == (200, b"\xa0", "application/cbor"), (said, body)
    # An input without members may be no body at all.
    for less in [{}, {"Content_Type": None}, {"Content_Type": None, "Accept": None}, {"Accept": "*/*"}]:
        assert send(CBOR, "ListApplications", b"", **less)[0] == 200, less
    assert send(CBOR, "ListApplications", b"\xbf\xff", Content_Type="application/cbor; v=1")[0] == 200
    for path in ["/v1/service/CodeDeploy_20141006", "/a%20b/%C3%A9/service/com.amazonaws.codedeploy.CodeDeploy_20141006"]:
        assert send(CBOR, "", b"", path=f"{path}/operation/ListApplications")[0] == 200, path
    prefixed = client(CBOR, endpoint=f"{ENDPOINT}/behind/a%20proxy")
    assert prefixed.list_applications()["applications"] == []

    service = "/service/CodeDeploy_20141006/operation"
    refused = [
        (415, "UnsupportedMediaType", {"body": b"\xa0", "Content_Type": "application/json"}),
        (415, "UnsupportedMediaType", {"body": b"\xa0", "Content_Type": None}),
        (400, "UnknownOperation", {"body": b"", "X_Amz_Target": "CodeDeploy_20141006.ListApplications"}),
        (400, "UnknownOperation", {"body": b"", "X_Amzn_Target": "CodeDeploy_20141006.ListApplications"}),
        (400, "UnknownOperation", {"body": b"", "method": "GET"}),
        (400, "UnknownOperation", {"body": b"", "method": "PUT"}),
        (400, "UnknownOperation", {"body": b"", "path": "/"}),
        (400, "UnknownOperation", {"body": b"", "path": f"{service}/ListApplications/"}),
        (400, "UnknownOperation", {"body": b"", "path": f"{service}/com.amazonaws.codedeploy.ListApplications"}),
        (400, "UnknownOperation", {"body": b"", "path": "/service/CodeDeployCommandService_v20141006/operation/PollHostCommand"}),
        (413, "RequestEntityTooLarge", {"body": b"\xa0" * (1024 * 1024 + 1)}),
    ]
    for status, name, request in refused:
        found, said, answer = send(CBOR, "ListApplications", **request)
        assert (found, said["smithy-protocol"]) == (status, "rpc-v2-cbor"), (request.keys(), found, answer)
        assert said["content-type"] == "application/cbor" and said["x-amzn-requestid"], said
        assert f"com.amazonaws.codedeploy#{name}Exception".encode() in answer, (name, answer)
    # JSON is not minded by what other protocols say.
    assert send(JSON, "ListApplications", b"{}", Smithy_Protocol="rpc-v2-json")[0] == 200


def hostile():
    """Bodies that claim or nest more than they are; the service refuses them and goes on."""
    room = 1024 * 1024 - 64
    name = item("applicationName")
    bodies = [
        *[b"\xa1\x61x" + nested * (room // len(nested)) for nested in (b"\x81", b"\x9f", b"\xa1\x60", b"\xbf\x60", b"\xc1", b"\x81\x9f")],
        *[b"\xa1\x64tags" + claim for claim in (b"\x9b" + b"\xff" * 8, b"\x9b\x00\x00\x00\x01" + b"\x00" * 4 + b"\xa0")],
        b"\xbb" + b"\xff" * 8 + name + b"\x60",
        b"\xa1" + name + b"\x7b" + b"\xff" * 8,
        b"\xa1" + name + b"\x7f" + b"\x60" * room,
        b"\xa1" + name + b"\xc1\x60",
        b"\xa1" + name + b"\x62\xc3\x28",
        b"\xa2" + (name + b"\x61a") * 2,
        b"\xa1" + name + b"\xf8\x00",
        b"\xa1\x64tags" + b"\x9f" + b"\xa0" * room + b"\xff",
        b"\xa1" + name + b"\x61a" + b"\xa0" * room,
    ]
    for body in bodies:
        # The input of the second is made of two shapes.
        for operation in ("CreateApplication", "CreateDeploymentGroup"):
            status, said, answer = send(CBOR, operation, body)
            assert status == 400 and b"#SerializationException" in answer, (operation, body[:40], status, answer)
    unknown = b"\xa2\x61x" + b"\x81" * 100 + b"\x00" + name + item("deep")
    assert send(CBOR, "CreateApplication", unknown)[0] == 200


stories()
headers()
hostile()
