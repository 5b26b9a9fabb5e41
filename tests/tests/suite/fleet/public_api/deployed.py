"""Deployments, line by line as an operator types them, to hosts whose agents do as this script says."""

import json
import re
import sys
import threading

from world import ROLE, Host, aws, ok, refused, until

REVISION = "--s3-location bucket=bkt,key={},bundleType=zip"


def group(name, tier, config="AllAtOnce", options=""):
    ok(
        f"create-deployment-group --application-name site --deployment-group-name {name} --service-role-arn {ROLE} "
        f"--deployment-config-name {config if config == 'most' else 'CodeDeployDefault.' + config} "
        f"--on-premises-instance-tag-filters Key=tier,Value={tier},Type=KEY_AND_VALUE {options}"
    )


def creation(name, key="app.zip", options=""):
    return f"create-deployment --application-name site --deployment-group-name {name} {REVISION.format(key)} {options}"


def deploy(name, key="app.zip", options=""):
    identifier = ok(creation(name, key, options))["deploymentId"]
    assert re.fullmatch("d-[A-Z0-9]{9}", identifier), identifier
    return identifier


def info(identifier):
    return ok(f"get-deployment --deployment-id {identifier}")["deploymentInfo"]


def ended(identifier):
    return until("the end of the deployment", lambda: (lambda found: found if "completeTime" in found else None)(info(identifier)))


def targets(identifier, options=""):
    """The targets; none while they are not known."""
    answer = aws(f"list-deployment-targets --deployment-id {identifier} {options}")
    if "DeploymentNotStartedException" in answer.err:
        return []
    assert answer.code == 0, answer
    return json.loads(answer.out)["targetIds"]


def target(identifier, name):
    shown = ok(f"get-deployment-target --deployment-id {identifier} --target-id {name}")
    return shown["deploymentTarget"]["instanceTarget"]


def working(*hosts, **how):
    threads = [threading.Thread(target=host.run, kwargs=how, daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    return threads


def one_host():
    box = Host("box1", "tier=one")
    group("one", "one")
    identifier = deploy("one", options="--description d --file-exists-behavior OVERWRITE")
    text = refused(creation("one"), "DeploymentLimitExceeded", "'one' already has an active Deployment")
    assert f"already has an active Deployment '{identifier}'" in text, text
    assert until("the targets", lambda: targets(identifier)) == ["box1"]
    box.run()
    shown = ended(identifier)
    assert shown["status"] == "Succeeded" and shown["creator"] == "user" and shown["description"] == "d", shown
    assert shown["fileExistsBehavior"] == "OVERWRITE" and shown["deploymentOverview"]["Succeeded"] == 1, shown
    assert aws(f"wait deployment-successful --deployment-id {identifier}").code == 0

    succeeded = """--target-filters '{"TargetStatus":["Succeeded"]}'"""
    assert targets(identifier, succeeded) == ["box1"]
    assert targets(identifier, succeeded.replace("Succeeded", "Failed")) == []
    listing = f"list-deployment-targets --deployment-id {identifier} --target-filters"
    refused(f"""{listing} '{{"Colour":["red"]}}'""", "InvalidTargetFilterName")
    refused(f"""{listing} '{{"TargetStatus":["Gone"]}}'""", "InvalidInstanceStatus")
    refused(f"""{listing} '{{"ServerInstanceLabel":["Red"]}}'""", "InvalidInstanceType")
    refused(f"""{listing} '{{"ServerInstanceLabel":["Blue"]}}'""", "InvalidDeploymentInstanceType")

    events = target(identifier, "box1")["lifecycleEvents"]
    assert [event["lifecycleEventName"] for event in events] == [
        "ApplicationStop", "DownloadBundle", "BeforeInstall", "Install", "AfterInstall", "ApplicationStart", "ValidateService",
    ]
    for event in events:
        diagnostics = {"errorCode": "Success", "scriptName": "", "message": "Succeeded", "logTail": ""}
        assert event["status"] == "Succeeded" and event["diagnostics"] == diagnostics, event
    batch = f"batch-get-deployment-targets --deployment-id {identifier} --target-ids"
    assert len(ok(f"{batch} box1")["deploymentTargets"]) == 1
    refused(f"{batch} box1 ghost", "DeploymentTargetDoesNotExist")
    refused(f"{batch} 'a b'", "InvalidDeploymentTargetId")
    arn = target(identifier, "box1")["targetArn"]
    assert target(identifier, arn)["targetId"] == "box1"

    instances = f"list-deployment-instances --deployment-id {identifier} --instance-status-filter"
    assert ok(f"{instances} Succeeded")["instancesList"] == ["box1"]
    assert ok(f"{instances} Failed Pending")["instancesList"] == []
    refused(f"{instances} Gone", "InvalidInstanceStatus")
    refused(f"list-deployment-instances --deployment-id {identifier} --instance-type-filter Green", "InvalidDeploymentInstanceType")
    summary = ok(f"get-deployment-instance --deployment-id {identifier} --instance-id box1")["instanceSummary"]
    assert summary["instanceId"] == arn and summary["status"] == "Succeeded" and len(summary["lifecycleEvents"]) == 7
    refused(f"get-deployment-instance --deployment-id {identifier} --instance-id ghost", "InstanceDoesNotExist")
    batch = ok(f"batch-get-deployment-instances --deployment-id {identifier} --instance-ids box1 ghost")
    assert len(batch["instancesSummary"]) == 1 and "ghost" in batch["errorMessage"], batch

    later = deploy("one", "next.zip")
    in_group = "list-deployments --application-name site --deployment-group-name one"
    assert ok(in_group)["deployments"] == [later, identifier]
    since = "--create-time-range start=2026-01-01T00:00:00Z"
    assert ok(f"{in_group} --include-only-statuses Succeeded Failed {since}")["deployments"] == [identifier]
    assert ok(f"{in_group} --create-time-range end=2026-01-01T00:00:00Z")["deployments"] == []
    refused("list-deployments --application-name site", "DeploymentGroupNameRequired")
    refused("list-deployments --deployment-group-name one", "ApplicationNameRequired")
    refused(f"{in_group} --include-only-statuses Done", "InvalidDeploymentStatus")
    refused("list-deployments --create-time-range start=2026-01-02T00:00:00Z,end=2026-01-01T00:00:00Z", "InvalidTimeRange")
    assert len(ok(f"batch-get-deployments --deployment-ids {identifier} d-ZZZZZZZZZ")["deploymentsInfo"]) == 1
    refused("batch-get-deployments --deployment-ids x", "InvalidDeploymentId")
    shown = ok("get-deployment-group --application-name site --deployment-group-name one")["deploymentGroupInfo"]
    assert shown["targetRevision"]["s3Location"]["key"] == "next.zip", shown
    assert shown["lastSuccessfulDeployment"]["deploymentId"] == identifier, shown
    assert shown["lastAttemptedDeployment"]["deploymentId"] == later, shown

    # A stop waits for the hook that runs.
    event, end = box.take()
    stop = f"stop-deployment --deployment-id {later}"
    assert ok(stop)["status"] == "Pending"
    end()
    assert ended(later)["status"] == "Stopped"
    assert ok(stop)["status"] == "Succeeded"
    refused(f"stop-deployment --deployment-id {identifier}", "DeploymentAlreadyCompleted", identifier)
    assert info(later)["previousRevision"]["s3Location"]["key"] == "app.zip"
    refused(f"continue-deployment --deployment-id {identifier}", "UnsupportedActionForDeploymentType")
    refused(f"continue-deployment --deployment-id {identifier} --deployment-wait-type TEA", "InvalidDeploymentWaitType")
    refused(f"put-lifecycle-event-hook-execution-status --deployment-id {identifier}", "UnsupportedActionForDeploymentType")
    revision = ok(f"get-application-revision --application-name site {REVISION.format('app.zip')}")["revisionInfo"]
    assert revision["firstUsedTime"] == revision["registerTime"] and identifier in revision["description"], revision
    deployed = ok("list-application-revisions --application-name site --deployed include")["revisions"]
    assert [one["s3Location"]["key"] for one in deployed] == ["next.zip"], deployed


def nobody():
    group("nobody", "nobody")
    identifier = deploy("nobody")
    shown = ended(identifier)
    assert (shown["status"], shown["errorInformation"]["code"]) == ("Failed", "NO_INSTANCES"), shown
    assert ok(f"list-deployment-targets --deployment-id {identifier}")["targetIds"] == []
    assert aws(f"wait deployment-successful --deployment-id {identifier}").code == 255
    for options, *name in [
        ("--description " + "x" * 257, "DescriptionTooLong"),
        ("--deployment-config-name none", "DeploymentConfigDoesNotExist"),
        ("--file-exists-behavior KEEP", "InvalidFileExistsBehavior"),
        ("--auto-rollback-configuration enabled=true", "InvalidAutoRollbackConfig"),
        ("--target-instances tagFilters=[{Key=a,Value=b,Type=KEY_AND_VALUE}]", "InvalidTargetInstances"),
        ("--deployment-mode RESTART", "InvalidInput", "RESTART"),
        ("--override-alarm-configuration enabled=true", "InvalidAlarmConfig"),
    ]:
        refused(creation("nobody", options=options), *name)
    restart = "create-deployment --application-name site --deployment-group-name nobody --deployment-mode RESTART"
    refused(restart, "RevisionDoesNotExist", "nobody")
    refused("create-deployment --application-name site", "DeploymentGroupNameRequired")
    refused("create-deployment --application-name site --deployment-group-name nobody", "RevisionRequired")
    refused(creation("none"), "DeploymentGroupDoesNotExist")
    refused(creation("nobody").replace("zip,", "yml,").replace("=zip", "=YAML"), "InvalidRevision")


def two_hosts():
    first, second = Host("left", "tier=two"), Host("right", "tier=two")
    group("two", "two", "OneAtATime")

    def statuses(identifier):
        return {name: target(identifier, name)["status"] for name in ["left", "right"]}

    identifier = deploy("two")
    first.run(fail=["AfterInstall"])
    shown = ended(identifier)
    assert (shown["status"], shown["errorInformation"]["code"]) == ("Failed", "HEALTH_CONSTRAINTS"), shown
    assert statuses(identifier) == {"left": "Failed", "right": "Skipped"}
    events = target(identifier, "left")["lifecycleEvents"]
    assert [event["status"][0] for event in events] == list("SSSSFSS"), events
    assert events[4]["diagnostics"]["errorCode"] == "ScriptFailed" and "startTime" not in events[5], events

    # Unhealthy hosts are deployed to first; the failure of the last one is allowed.
    identifier = deploy("two")
    order = []
    done = [threading.Thread(target=lambda: (first.run(), order.append("left")), daemon=True)]
    done[0].start()
    done[0].join(60)
    second.run(fail=["ValidateService"])
    shown = ended(identifier)
    assert shown["status"] == "Succeeded" and shown["deploymentOverview"]["Failed"] == 1, shown
    assert statuses(identifier) == {"left": "Succeeded", "right": "Failed"}

    # A broken ApplicationStop of the previous revision.
    identifier = deploy("two", options="--deployment-config-name CodeDeployDefault.AllAtOnce --ignore-application-stop-failures")
    for thread in working(first, second, fail=["ApplicationStop"]):
        thread.join(60)
    assert ended(identifier)["status"] == "Succeeded"
    assert target(identifier, "left")["lifecycleEvents"][0]["status"] == "Failed"


def rollback():
    box = Host("back", "tier=back")
    group("back", "back", options="--auto-rollback-configuration enabled=true,events=DEPLOYMENT_FAILURE")
    good = deploy("back", "good.zip")
    box.run()
    ended(good)

    def rolled_back(identifier, status):
        assert ended(identifier)["status"] == status
        back = until("the rollback", lambda: info(identifier).get("rollbackInfo", {}).get("rollbackDeploymentId"))
        box.run()
        shown = ended(back)
        assert (shown["status"], shown["creator"]) == ("Succeeded", "codeDeployRollback"), shown
        assert shown["revision"]["s3Location"]["key"] == "good.zip", shown
        message = f"Deployment {back} is triggered to roll back deployment {identifier}."
        assert shown["rollbackInfo"] == {"rollbackTriggeringDeploymentId": identifier, "rollbackMessage": message}, shown

    bad = deploy("back", "bad.zip")
    box.run(fail=["Install"])
    rolled_back(bad, "Failed")

    stopped = deploy("back", "slow.zip")
    _, end = box.take()
    assert ok(f"stop-deployment --deployment-id {stopped} --auto-rollback-enabled")["status"] == "Pending"
    end()
    rolled_back(stopped, "Stopped")

    restarted = ok(
        "create-deployment --application-name site --deployment-group-name back --deployment-mode RESTART"
    )["deploymentId"]
    box.run()
    shown = ended(restarted)
    assert (shown["status"], shown["deploymentMode"]) == ("Succeeded", "RESTART"), shown
    assert shown["revision"]["s3Location"]["key"] == "good.zip", shown


def every_form_of_filter():
    """Which hosts a group has, read off the targets of a deployment to it that nobody carries out."""
    for name, *tags in [("a", "fleet=f", "env=prod", "role=web"), ("b", "fleet=f", "env=prod"), ("c", "fleet=f", "env=test")]:
        Host(f"form-{name}", *tags)
    fleet = {"Key": "fleet", "Value": "f", "Type": "KEY_AND_VALUE"}
    prod = {"Key": "env", "Value": "prod", "Type": "KEY_AND_VALUE"}
    test = {"Value": "test", "Type": "VALUE_ONLY"}
    role = {"Key": "role", "Type": "KEY_ONLY"}
    forms = {
        "flat": (f"--on-premises-instance-tag-filters '{json.dumps([role, test])}'", "ac"),
        "set": (f"--on-premises-tag-set '{json.dumps({'onPremisesTagSetList': [[fleet], [prod]]})}'", "ab"),
        "ec2": (f"--ec2-tag-filters '{json.dumps([test])}'", "c"),
        "ec2-set": (f"--ec2-tag-set '{json.dumps({'ec2TagSetList': [[role, test], [prod]]})}'", "a"),
    }
    forms["union"] = (f"{forms['flat'][0]} {forms['ec2-set'][0]}", "ac")
    for name, (options, expected) in forms.items():
        ok(
            f"create-deployment-group --application-name site --deployment-group-name {name} --service-role-arn {ROLE} "
            f"--deployment-config-name CodeDeployDefault.AllAtOnce {options}"
        )
        identifier = deploy(name)
        found = until("the targets", lambda: targets(identifier))
        assert sorted(found) == [f"form-{letter}" for letter in expected], (name, found)


def ten_hosts():
    for number in range(10):
        Host(f"ten{number}", "tier=ten")
    ok("create-deployment-config --deployment-config-name most --minimum-healthy-hosts type=FLEET_PERCENT,value=95")
    group("ten", "ten", "most")
    identifier = deploy("ten")
    shown = ended(identifier)
    assert (shown["status"], shown["errorInformation"]["code"]) == ("Failed", "HEALTH_CONSTRAINTS_INVALID"), shown
    assert shown["deploymentOverview"]["Skipped"] == 10, shown


def silence():
    """An agent that is not there; the service waits for it less long here."""
    Host("mute", "tier=mute")
    group("mute", "mute")
    identifier = deploy("mute")
    assert ended(identifier)["status"] == "Failed"
    first, *others = target(identifier, "mute")["lifecycleEvents"]
    assert (first["status"], first["diagnostics"]["errorCode"]) == ("Failed", "UnknownError"), first
    assert all(event["status"] == "Skipped" for event in others), others


ok("create-application --application-name site")
for case in sys.argv[1:]:
    globals()[case]()
