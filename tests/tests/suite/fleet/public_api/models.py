"""What AWS's own model says of every operation, held against the service: names, errors, shapes, pages, waiters.

The argument is the protocol.
"""

import datetime
import json
import sys
import urllib.error
import urllib.request

import botocore.exceptions
from raw import MALFORMED, send, written
from world import CBOR, ENDPOINT, ROLE, Host, client, until

PROTOCOL = sys.argv[1]
checked = client(PROTOCOL)
# Sends what the service has to refuse itself.
unchecked = client(PROTOCOL, parameter_validation=False)
model = checked.meta.service_model


def call(operation, **members):
    method = {name: method for method, name in unchecked.meta.method_to_api_mapping.items()}[operation]
    return getattr(unchecked, method)(**members)


def error(operation, **members):
    try:
        call(operation, **members)
    except botocore.exceptions.ClientError as refusal:
        assert refusal.response["Error"]["Message"], (operation, members)
        return refusal.response["Error"]["Code"].removesuffix("Exception")
    return None


def raw(operation, body):
    """What the service answers to any body at all."""
    status, _, answer = send(PROTOCOL, operation, body)
    return status, answer


def empty_inputs():
    """Every operation is there, and names the first member that it lacks."""
    expected = {
        "BatchGetApplications": "ApplicationNameRequired",
        "BatchGetDeploymentInstances": "DeploymentIdRequired",
        "BatchGetDeploymentTargets": "DeploymentIdRequired",
        "BatchGetDeployments": "DeploymentIdRequired",
        "BatchGetOnPremisesInstances": "InstanceNameRequired",
        "AddTagsToOnPremisesInstances": "TagRequired",
        "RemoveTagsFromOnPremisesInstances": "TagRequired",
        "DeleteGitHubAccountToken": "GitHubAccountTokenNameRequired",
        "DeleteResourcesByExternalId": None,
        "TagResource": "ResourceArnRequired",
        "UntagResource": "ResourceArnRequired",
        "ListTagsForResource": "ResourceArnRequired",
        "UpdateApplication": "ApplicationNameRequired",
        "CreateDeploymentConfig": "DeploymentConfigNameRequired",
        "GetDeploymentConfig": "DeploymentConfigNameRequired",
        "DeleteDeploymentConfig": "DeploymentConfigNameRequired",
        "ListApplications": None,
        "ListDeployments": None,
        "ListDeploymentConfigs": None,
        "ListGitHubAccountTokenNames": None,
        "ListOnPremisesInstances": None,
        "RegisterOnPremisesInstance": "InstanceNameRequired",
        "DeregisterOnPremisesInstance": "InstanceNameRequired",
        "GetOnPremisesInstance": "InstanceNameRequired",
    }
    by_deployment = [
        "ContinueDeployment", "GetDeployment", "GetDeploymentInstance", "GetDeploymentTarget", "ListDeploymentInstances",
        "ListDeploymentTargets", "PutLifecycleEventHookExecutionStatus", "SkipWaitTimeForInstanceTermination", "StopDeployment",
    ]
    expected |= dict.fromkeys(by_deployment, "DeploymentIdRequired")
    for operation in model.operation_names:
        assert error(operation) == expected.get(operation, "ApplicationNameRequired"), (operation, error(operation))
        # Null is absent, and what a newer model has is not looked at.
        newer = {"applicationName": None, "newerMember": {"a": [1.5, None, datetime.datetime.now(datetime.timezone.utc)]}}
        status, body = raw(operation, written(PROTOCOL, newer))
        assert status in (200, 400) and b"Serialization" not in body, (operation, body)
        for body in MALFORMED[PROTOCOL]:
            status, answer = raw(operation, body)
            assert status == 400 and b"SerializationException" in answer, (operation, body, answer)
    assert b"UnknownOperationException" in raw("MakeCoffee", written(PROTOCOL, {}))[1]
    used = checked.list_applications()["ResponseMetadata"]["HTTPHeaders"].get("smithy-protocol")
    assert used == ("rpc-v2-cbor" if PROTOCOL == CBOR else None), used
    # A path alone names no operation; the header is what says the protocol.
    request = urllib.request.Request(f"{ENDPOINT}/service/CodeDeploy_20141006/operation/ListApplications", b"\xa0")
    try:
        urllib.request.urlopen(request)
        raise AssertionError("a protocol that the service does not speak was answered")
    except urllib.error.HTTPError as refusal:
        assert refusal.code == 404


def wrong_inputs():
    """One wrong member at a time, and the order in which two are named."""
    app = {"applicationName": "shop"}
    group = {**app, "deploymentGroupName": "web"}
    new_group = {**app, "deploymentGroupName": "new", "serviceRoleArn": ROLE}
    s3 = {"revisionType": "S3", "s3Location": {"bucket": "b", "key": "k", "bundleType": "zip"}}
    git = {"revisionType": "GitHub", "gitHubLocation": {"repository": "a/b", "commitId": "0" * 40}}
    deployment = {"deploymentId": "d-ZZZZZZZZZ"}
    tag = {"Key": "a", "Value": "b"}
    trigger = {"triggerName": "t", "triggerTargetArn": "arn:aws:sns:us-east-1:123456789012:t", "triggerEvents": ["DeploymentStart"]}
    blue_green = {"terminateBlueInstancesOnDeploymentSuccess": {}, "deploymentReadyOption": {}}
    cases = [
        ("InvalidApplicationName", "GetApplication", {"applicationName": "a/b"}),
        ("InvalidApplicationName", "CreateApplication", {"applicationName": "é"}),
        ("InvalidTagsToAdd", "CreateApplication", {"applicationName": "n", "tags": [{"Value": "b"}]}),
        ("InvalidTagsToAdd", "CreateApplication", {"applicationName": "n", "tags": [{"Key": "k" * 129}]}),
        ("InvalidTagsToAdd", "CreateApplication", {"applicationName": "n", "tags": [{"Key": "k", "Value": "v" * 257}]}),
        ("InvalidComputePlatform", "CreateApplication", {"applicationName": "n", "computePlatform": "Kubernetes"}),
        ("BatchLimitExceeded", "BatchGetApplications", {"applicationNames": ["shop"] * 101}),
        ("ApplicationNameRequired", "BatchGetApplications", {"applicationNames": [""]}),
        ("ApplicationNameRequired", "UpdateApplication", app),
        ("DeploymentGroupNameRequired", "GetDeploymentGroup", {"applicationName": "none"}),
        ("InvalidDeploymentGroupName", "GetDeploymentGroup", {"applicationName": "none", "deploymentGroupName": "a b"}),
        ("ApplicationDoesNotExist", "GetDeploymentGroup", {"applicationName": "none", "deploymentGroupName": "web"}),
        ("RoleRequired", "CreateDeploymentGroup", {**app, "deploymentGroupName": "new"}),
        ("RoleRequired", "CreateDeploymentGroup", {"applicationName": "a b", "deploymentGroupName": "new"}),
        ("InvalidInput", "CreateDeploymentGroup", {**new_group, "serviceRoleArn": "arn:aws:iam::1:role/cd"}),
        ("InvalidEC2Tag", "CreateDeploymentGroup", {**new_group, "ec2TagFilters": [{"Key": "a", "Value": "b", "Type": "VALUE_ONLY"}]}),
        ("InvalidEC2Tag", "CreateDeploymentGroup", {**new_group, "ec2TagSet": {"ec2TagSetList": [[tag] * 11]}}),
        ("TagSetListLimitExceeded", "CreateDeploymentGroup", {**new_group, "ec2TagSet": {"ec2TagSetList": [[tag]] * 4}}),
        ("InvalidTag", "CreateDeploymentGroup", {**new_group, "onPremisesInstanceTagFilters": [{}]}),
        ("InvalidTriggerConfig", "CreateDeploymentGroup", {**new_group, "triggerConfigurations": [{}]}),
        ("InvalidTriggerConfig", "CreateDeploymentGroup", {**new_group, "triggerConfigurations": [trigger, trigger]}),
        ("InvalidTriggerConfig", "CreateDeploymentGroup", {**new_group, "triggerConfigurations": [{**trigger, "triggerEvents": []}]}),
        ("TriggerTargetsLimitExceeded", "CreateDeploymentGroup", {**new_group, "triggerConfigurations": [
            {**trigger, "triggerName": f"t{n}", "triggerTargetArn": f"{trigger['triggerTargetArn']}{n}"} for n in range(11)]}),
        ("InvalidAlarmConfig", "CreateDeploymentGroup", {**new_group, "alarmConfiguration": {"alarms": [{"name": "a" * 256}]}}),
        ("InvalidLoadBalancerInfo", "CreateDeploymentGroup", {**new_group, "loadBalancerInfo": {"elbInfoList": [{"name": "e"}] * 11}}),
        ("InvalidDeploymentStyle", "CreateDeploymentGroup", {**new_group, "deploymentStyle": {"deploymentType": "BLUE_GREEN"}}),
        ("InvalidBlueGreenDeploymentConfiguration", "CreateDeploymentGroup", {**new_group, "blueGreenDeploymentConfiguration": {
            **blue_green, "deploymentReadyOption": {"waitTimeInMinutes": 2881}}}),
        ("InvalidBlueGreenDeploymentConfiguration", "CreateDeploymentGroup", {**new_group, "blueGreenDeploymentConfiguration": {
            **blue_green, "terminateBlueInstancesOnDeploymentSuccess": {"action": "PAINT"}}}),
        ("InvalidAutoScalingGroupProcessToSuspend", "CreateDeploymentGroup", {**new_group, "ec2DeploymentOptions": {
            "autoScalingGroupProcessesToSuspend": ["Terminate"] * 5}}),
        ("InvalidDeploymentConfigName", "CreateDeploymentGroup", {**new_group, "deploymentConfigName": "a b"}),
        ("DeploymentGroupAlreadyExists", "CreateDeploymentGroup", {**new_group, "deploymentGroupName": "web"}),
        ("DeploymentGroupDoesNotExist", "UpdateDeploymentGroup", {**app, "currentDeploymentGroupName": "none"}),
        ("DeploymentGroupNameRequired", "UpdateDeploymentGroup", app),
        ("InvalidInput", "UpdateDeploymentGroup", {**app, "currentDeploymentGroupName": "web", "serviceRoleArn": "x"}),
        ("InvalidDeploymentStyle", "UpdateDeploymentGroup", {**app, "currentDeploymentGroupName": "web", "deploymentStyle": {"deploymentType": "BLUE_GREEN"}}),
        ("BatchLimitExceeded", "BatchGetDeploymentGroups", {**app, "deploymentGroupNames": ["web"] * 101}),
        ("DeploymentGroupNameRequired", "BatchGetDeploymentGroups", {**app, "deploymentGroupNames": []}),
        ("RevisionRequired", "RegisterApplicationRevision", app),
        ("InvalidRevision", "RegisterApplicationRevision", {**app, "revision": {}}),
        ("InvalidRevision", "RegisterApplicationRevision", {**app, "revision": {"revisionType": "Disk"}}),
        ("InvalidRevision", "RegisterApplicationRevision", {**app, "revision": {"revisionType": "String", "string": {"content": "x"}}}),
        ("InvalidRevision", "RegisterApplicationRevision", {**app, "revision": {**s3, "revisionType": "GitHub"}}),
        ("InvalidRevision", "RegisterApplicationRevision", {**app, "revision": {**s3, "gitHubLocation": git["gitHubLocation"]}}),
        ("InvalidRevision", "RegisterApplicationRevision", {**app, "revision": {**git, "gitHubLocation": {"repository": "a/b", "commitId": "main"}}}),
        ("RevisionDoesNotExist", "GetApplicationRevision", {**app, "revision": git}),
        ("BatchLimitExceeded", "BatchGetApplicationRevisions", {**app, "revisions": [git] * 26}),
        ("RevisionRequired", "BatchGetApplicationRevisions", {**app, "revisions": []}),
        ("InvalidBucketNameFilter", "ListApplicationRevisions", {**app, "s3Bucket": ""}),
        ("InvalidKeyPrefixFilter", "ListApplicationRevisions", {**app, "s3Bucket": "b", "s3KeyPrefix": ""}),
        ("InvalidNextToken", "ListApplicationRevisions", {**app, "nextToken": "x"}),
        ("InvalidNextToken", "ListDeploymentGroups", {**app, "nextToken": ""}),
        ("InvalidNextToken", "ListGitHubAccountTokenNames", {"nextToken": "x"}),
        ("DeploymentConfigNameRequired", "CreateDeploymentConfig", {"deploymentConfigName": ""}),
        ("InvalidComputePlatform", "CreateDeploymentConfig", {
            "deploymentConfigName": "c", "computePlatform": "ECS", "minimumHealthyHosts": {"type": "HOST_COUNT", "value": 1}}),
        ("InvalidMinimumHealthyHostValue", "CreateDeploymentConfig", {
            "deploymentConfigName": "c", "minimumHealthyHosts": {"type": "MOST_CONCURRENCY", "value": 1}}),
        ("DeploymentGroupNameRequired", "CreateDeployment", app),
        ("RevisionRequired", "CreateDeployment", group),
        ("InvalidInput", "CreateDeployment", {**group, "deploymentMode": "RESTART", "revision": s3}),
        ("InvalidInput", "CreateDeployment", {**group, "deploymentMode": "RESTART", "updateOutdatedInstancesOnly": True}),
        ("InvalidInput", "CreateDeployment", {**group, "deploymentMode": "SOON", "revision": s3}),
        ("InvalidAutoScalingGroupProcessToSuspend", "CreateDeployment", {
            **group, "revision": s3, "ec2DeploymentOptions": {"autoScalingGroupProcessesToSuspend": ["x"]}}),
        ("InvalidExternalId", "ListDeployments", {"externalId": "x" * 257}),
        ("InvalidDeploymentId", "GetDeployment", {"deploymentId": "d-abc"}),
        ("DeploymentDoesNotExist", "GetDeployment", deployment),
        ("DeploymentDoesNotExist", "StopDeployment", deployment),
        ("DeploymentDoesNotExist", "ContinueDeployment", deployment),
        ("DeploymentDoesNotExist", "SkipWaitTimeForInstanceTermination", deployment),
        ("DeploymentDoesNotExist", "PutLifecycleEventHookExecutionStatus", deployment),
        ("DeploymentTargetIdRequired", "GetDeploymentTarget", deployment),
        ("InvalidDeploymentTargetId", "GetDeploymentTarget", {**deployment, "targetId": "a b"}),
        ("DeploymentTargetIdRequired", "BatchGetDeploymentTargets", {**deployment, "targetIds": []}),
        ("InvalidDeploymentTargetId", "BatchGetDeploymentTargets", {**deployment, "targetIds": ["a"] * 101}),
        ("InstanceIdRequired", "GetDeploymentInstance", deployment),
        ("InvalidInstanceName", "GetDeploymentInstance", {**deployment, "instanceId": "a b"}),
        ("InstanceIdRequired", "BatchGetDeploymentInstances", {**deployment, "instanceIds": []}),
        ("BatchLimitExceeded", "BatchGetDeploymentInstances", {**deployment, "instanceIds": ["a"] * 101}),
        ("BatchLimitExceeded", "BatchGetDeployments", {"deploymentIds": ["d-A"] * 101}),
        ("BatchLimitExceeded", "BatchGetOnPremisesInstances", {"instanceNames": ["a"] * 101}),
        ("InstanceLimitExceeded", "AddTagsToOnPremisesInstances", {"tags": [tag], "instanceNames": ["a"] * 101}),
        ("InstanceNameRequired", "AddTagsToOnPremisesInstances", {"tags": [tag]}),
        ("InvalidTag", "RemoveTagsFromOnPremisesInstances", {"tags": [tag, tag], "instanceNames": ["a"]}),
        ("InvalidInstanceName", "GetOnPremisesInstance", {"instanceName": "x" * 101}),
        ("TagRequired", "TagResource", {"ResourceArn": "arn:aws:codedeploy:us-east-1:123456789012:application:shop", "Tags": []}),
        ("TagRequired", "UntagResource", {"ResourceArn": "arn:aws:codedeploy:us-east-1:123456789012:application:shop"}),
        ("InvalidArn", "ListTagsForResource", {"ResourceArn": "arn:aws:codedeploy:us-east-1:123456789012:application:" + "x" * 1000}),
        ("DeploymentConfigDoesNotExist", "TagResource", {
            "ResourceArn": "arn:aws:codedeploy:us-east-1:123456789012:deploymentconfig:none", "Tags": [tag]}),
        ("InvalidGitHubAccountTokenName", "DeleteGitHubAccountToken", {"tokenName": "a b"}),
    ]
    checked.create_application(applicationName="shop")
    checked.create_deployment_group(**{**new_group, "deploymentGroupName": "web"})
    for name, operation, members in cases:
        assert error(operation, **members) == name, (operation, members, error(operation, **members))
    for members in [{"applicationName": 1}, {"applicationName": "n", "tags": {}}, {"applicationName": "n", "tags": [None]}]:
        assert b"SerializationException" in raw("CreateApplication", written(PROTOCOL, members))[1], members
    # Deleting what is not there succeeds, and the halves of a filter that a client leaves empty are absent.
    assert checked.delete_deployment_group(applicationName="none", deploymentGroupName="none")["hooksNotCleanedUp"] == []
    checked.update_deployment_group(
        applicationName="shop",
        currentDeploymentGroupName="web",
        onPremisesInstanceTagFilters=[{"Key": "tier", "Value": "", "Type": "KEY_ONLY"}],
    )
    try:
        checked.get_application(applicationName="none")
        raise AssertionError("no such application")
    except checked.exceptions.ApplicationDoesNotExistException:
        pass
    created = checked.get_application(applicationName="shop")["application"]["createTime"]
    assert abs(datetime.datetime.now(datetime.timezone.utc) - created) < datetime.timedelta(minutes=10)


MANY = 101


def pages():
    """Every paginator of the model gives all there is, each thing once, over more pages than one."""
    names = [f"n{number:03}" for number in range(MANY)]
    checked.create_application(applicationName="paged")
    group = {"applicationName": "paged", "deploymentGroupName": "all"}
    checked.create_deployment_group(
        **group, serviceRoleArn=ROLE, onPremisesInstanceTagFilters=[{"Key": "paged", "Type": "KEY_ONLY"}]
    )
    revision = {"revisionType": "S3", "s3Location": {"bucket": "b", "key": "k", "bundleType": "zip"}}
    for name in names:
        checked.create_application(applicationName=name)
        checked.create_deployment_config(
            deploymentConfigName=name, minimumHealthyHosts={"type": "HOST_COUNT", "value": 0}
        )
        checked.create_deployment_group(applicationName="paged", deploymentGroupName=name, serviceRoleArn=ROLE)
        checked.register_application_revision(
            applicationName="paged", revision={**revision, "s3Location": {**revision["s3Location"], "key": name}}
        )
        checked.register_on_premises_instance(
            instanceName=name, iamUserArn=f"arn:aws:iam::123456789012:user/{name}"
        )
        checked.create_deployment(applicationName="paged", deploymentGroupName=name, revision=revision)
    for start in range(0, MANY, 100):
        checked.add_tags_to_on_premises_instances(
            tags=[{"Key": "paged", "Value": "yes"}], instanceNames=names[start : start + 100]
        )
    deployment = checked.create_deployment(**group, revision=revision)["deploymentId"]
    until("the targets", lambda: "startTime" in checked.get_deployment(deploymentId=deployment)["deploymentInfo"])
    of_deployment, of_application = {"deploymentId": deployment}, {"applicationName": "paged"}
    lists = {
        "list_applications": ({}, "applications"),
        "list_application_revisions": ({**of_application, "sortBy": "lastUsedTime", "sortOrder": "descending"}, "revisions"),
        "list_deployment_configs": ({}, "deploymentConfigsList"),
        "list_deployment_groups": (of_application, "deploymentGroups"),
        "list_deployment_instances": (of_deployment, "instancesList"),
        "list_deployment_targets": (of_deployment, "targetIds"),
        "list_deployments": ({}, "deployments"),
        "list_git_hub_account_token_names": ({}, "tokenNameList"),
        "list_on_premises_instances": ({"registrationStatus": "Registered"}, "instanceNames"),
    }
    for method in dir(checked):
        assert not (method.startswith("list_") and checked.can_paginate(method)) or method in lists, method
    for method, (members, result) in lists.items():
        found = [page[result] for page in checked.get_paginator(method).paginate(**members)]
        if method == "list_git_hub_account_token_names":
            assert found == [[]]
            continue
        items = [json.dumps(item) for page in found for item in page]
        assert len(found) > 1 and [len(page) for page in found[:-1]] == [100] * (len(found) - 1), (method, len(items))
        assert len(items) == len(set(items)) >= MANY, (method, len(items))
    first = checked.list_applications()
    assert error("ListDeploymentConfigs", nextToken=first["nextToken"]) == "InvalidNextToken"
    newest = checked.list_deployments()["deployments"]
    assert newest[0] == deployment
    times = {one["deploymentId"]: one["createTime"] for one in checked.batch_get_deployments(deploymentIds=newest)["deploymentsInfo"]}
    assert [times[one] for one in newest] == sorted(times.values(), reverse=True)


def waiter():
    host = Host("waited", "tier=waited")
    checked.create_application(applicationName="waits")
    group = {"applicationName": "waits", "deploymentGroupName": "one"}
    checked.create_deployment_group(
        **group,
        serviceRoleArn=ROLE,
        onPremisesInstanceTagFilters=[{"Key": "tier", "Value": "waited", "Type": "KEY_AND_VALUE"}],
    )
    revision = {"revisionType": "S3", "s3Location": {"bucket": "b", "key": "k", "bundleType": "zip"}}
    waiter = checked.get_waiter("deployment_successful")
    often = {"Delay": 0, "MaxAttempts": 100}
    good = checked.create_deployment(**group, revision=revision)["deploymentId"]
    host.run()
    waiter.wait(deploymentId=good, WaiterConfig=often)
    bad = checked.create_deployment(**group, revision=revision)["deploymentId"]
    host.run(fail=["Install"])
    until("the end", lambda: "completeTime" in checked.get_deployment(deploymentId=bad)["deploymentInfo"])
    try:
        waiter.wait(deploymentId=bad, WaiterConfig=often)
        raise AssertionError("a failed deployment is not waited for")
    except botocore.exceptions.WaiterError as failed:
        assert "Failed" in str(failed), failed


empty_inputs()
wrong_inputs()
pages()
waiter()
