"""What operators declare, line by line as they type it: applications, configurations, groups, revisions, instances."""

import json
import os
import re

from world import ROLE, aws, ok, refused

GROUP = f"create-deployment-group --application-name shop --service-role-arn {ROLE} --deployment-group-name"


def applications():
    create = "create-application --application-name shop --compute-platform Server --tags Key=team,Value=a"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", ok(create)["applicationId"])
    refused(create, "ApplicationAlreadyExists", "shop")
    refused("create-application --application-name 'bad name'", "InvalidApplicationName")
    refused(f"create-application --application-name {'x' * 101}", "InvalidApplicationName")
    refused("create-application --application-name l --compute-platform Lambda", "InvalidComputePlatform")
    refused("create-application --application-name l --tags Key=a Key=a", "InvalidTagsToAdd")

    info = ok("get-application --application-name shop")["application"]
    assert info.keys() == {"applicationId", "applicationName", "createTime", "linkedToGitHub", "computePlatform"}, info
    assert info["computePlatform"] == "Server" and info["linkedToGitHub"] is False
    refused("get-application --application-name none", "ApplicationDoesNotExist", "No application found for name: none")

    ok("create-application --application-name other")
    assert ok("list-applications")["applications"] == ["other", "shop"]
    page = ok("list-applications --max-items 1")
    assert page["applications"] == ["other"]
    rest = ok(f"list-applications --max-items 1 --starting-token {page['NextToken']}")
    assert rest["applications"] == ["shop"]
    refused("""list-applications --no-paginate --cli-input-json '{"nextToken":"x"}'""", "InvalidNextToken")

    assert len(ok("batch-get-applications --application-names shop other")["applicationsInfo"]) == 2
    refused("batch-get-applications --application-names shop nope", "ApplicationDoesNotExist")

    web = ok(f"{GROUP} web")["deploymentGroupId"]
    assert ok("update-application --application-name shop --new-application-name shop2") is None
    moved = ok("get-deployment-group --application-name shop2 --deployment-group-name web")["deploymentGroupInfo"]
    assert moved["deploymentGroupId"] == web
    refused("update-application --application-name shop2 --new-application-name other", "ApplicationAlreadyExists")
    ok("update-application --application-name shop2 --new-application-name shop")
    ok("delete-deployment-group --application-name shop --deployment-group-name web")
    assert ok("delete-application --application-name never-existed") is None
    ok("delete-application --application-name other")


def configurations():
    names = ok("list-deployment-configs")["deploymentConfigsList"]
    for name, kind, value in [
        ("OneAtATime", "MOST_CONCURRENCY", 1),
        ("HalfAtATime", "FLEET_PERCENT", 50),
        ("AllAtOnce", "FLEET_PERCENT", 0),
    ]:
        assert f"CodeDeployDefault.{name}" in names
        config = ok(f"get-deployment-config --deployment-config-name CodeDeployDefault.{name}")["deploymentConfigInfo"]
        assert config["minimumHealthyHosts"] == {"type": kind, "value": value}, config
        assert config["computePlatform"] == "Server", config
    refused("get-deployment-config --deployment-config-name q", "DeploymentConfigDoesNotExist")

    def create(name, hosts):
        return f"create-deployment-config --deployment-config-name {name} --minimum-healthy-hosts {hosts}"

    ok(create("q", "type=FLEET_PERCENT,value=75"))
    refused(create("q", "type=FLEET_PERCENT,value=75"), "DeploymentConfigAlreadyExists")
    for hosts in ["type=FLEET_PERCENT,value=100", "type=HOST_COUNT,value=-1", "type=FLEET_PERCENT"]:
        refused(create("r", hosts), "InvalidMinimumHealthyHostValue")
    refused("create-deployment-config --deployment-config-name r", "InvalidMinimumHealthyHostValue", "missing")
    refused(create("CodeDeployDefault.x", "type=HOST_COUNT,value=1"), "InvalidDeploymentConfigName", "reserved")
    ok(create("CodeDeployDefaultX", "type=HOST_COUNT,value=0"))
    ok("delete-deployment-config --deployment-config-name CodeDeployDefaultX")
    refused(
        create("r", "type=HOST_COUNT,value=1") + " --traffic-routing-config type=AllAtOnce",
        "InvalidTrafficRoutingConfiguration",
    )

    zonal = {
        "firstZoneMonitorDurationInSeconds": 60,
        "monitorDurationInSeconds": 30,
        "minimumHealthyHostsPerZone": {"type": "FLEET_PERCENT", "value": 50},
    }
    ok(create("zones", "type=HOST_COUNT,value=2") + f" --zonal-config '{json.dumps(zonal)}'")
    config = ok("get-deployment-config --deployment-config-name zones")["deploymentConfigInfo"]
    assert config["zonalConfig"] == zonal and config["minimumHealthyHosts"] == {"type": "HOST_COUNT", "value": 2}, config
    zonal["minimumHealthyHostsPerZone"]["value"] = 100
    refused(
        create("r", "type=HOST_COUNT,value=2") + f" --zonal-config '{json.dumps(zonal)}'",
        "InvalidZonalDeploymentConfiguration",
    )

    ok(f"{GROUP} using --deployment-config-name q")
    refused("delete-deployment-config --deployment-config-name q", "DeploymentConfigInUse", "using")
    ok("delete-deployment-group --application-name shop --deployment-group-name using")
    assert ok("delete-deployment-config --deployment-config-name q") is None
    assert ok("delete-deployment-config --deployment-config-name q") is None
    refused("delete-deployment-config --deployment-config-name CodeDeployDefault.AllAtOnce", "InvalidOperation")


def groups():
    by_env = "--on-premises-instance-tag-filters Key=env,Value=prod,Type=KEY_AND_VALUE"
    web = ok(f"{GROUP} web --deployment-config-name CodeDeployDefault.OneAtATime {by_env}")["deploymentGroupId"]
    refused(f"{GROUP} web", "DeploymentGroupAlreadyExists")
    filters = [{"Key": "env", "Value": "prod", "Type": "KEY_AND_VALUE"}]

    def tag_set(count):
        return json.dumps({"onPremisesTagSetList": [filters, *[[{"Key": "tier", "Type": "KEY_ONLY"}]] * (count - 1)]})

    ok(f"{GROUP} sets --on-premises-tag-set '{tag_set(2)}'")
    sets = ok("get-deployment-group --application-name shop --deployment-group-name sets")["deploymentGroupInfo"]
    assert len(sets["onPremisesTagSet"]["onPremisesTagSetList"]) == 2, sets
    ec2 = "--ec2-tag-filters Key=a,Value=b,Type=KEY_AND_VALUE"
    ec2_set = """--ec2-tag-set '{"ec2TagSetList":[[{"Key":"a","Type":"KEY_ONLY"}]]}'"""
    for options, name in [
        (f"{by_env} --on-premises-tag-set '{tag_set(2)}'", "InvalidOnPremisesTagCombination"),
        (f"{ec2} {ec2_set}", "InvalidEC2TagCombination"),
        (f"--on-premises-tag-set '{tag_set(4)}'", "TagSetListLimitExceeded"),
        ("--ec2-tag-filters Key=a,Value=b,Type=KEY_ONLY", "InvalidEC2Tag"),
        ("--ec2-tag-filters Key=a,Value=b,Type=SOME", "InvalidEC2Tag"),
        ("--on-premises-instance-tag-filters Key=a,Value=b,Type=KEY_ONLY", "InvalidTag"),
        ("--on-premises-instance-tag-filters " + "Key=a " * 11, "InvalidTag"),
        ("--alarm-configuration enabled=true", "InvalidAlarmConfig"),
        ("--alarm-configuration enabled=true,alarms=[]", "InvalidAlarmConfig"),
        ("--alarm-configuration enabled=true,alarms=[{name=a},{name=a}]", "InvalidAlarmConfig"),
        (f"--alarm-configuration enabled=true,alarms=[{','.join(f'{{name=a{n}}}' for n in range(11))}]", "AlarmsLimitExceeded"),
        ("--auto-rollback-configuration enabled=true", "InvalidAutoRollbackConfig"),
        ("--auto-rollback-configuration enabled=true,events=SOMETIMES", "InvalidAutoRollbackConfig"),
        ("--deployment-style deploymentType=BLUE_GREEN,deploymentOption=WITHOUT_TRAFFIC_CONTROL", "InvalidDeploymentStyle"),
        ("--deployment-style deploymentType=BOTH", "InvalidDeploymentStyle"),
        ("--deployment-style deploymentType=IN_PLACE,deploymentOption=WITH_TRAFFIC_CONTROL", "InvalidLoadBalancerInfo"),
        (f"--load-balancer-info targetGroupInfoList=[{{name={'x' * 33}}}]", "InvalidLoadBalancerInfo"),
        ("--trigger-configurations triggerName=t,triggerTargetArn=arn:aws:sqs:us-east-1:123456789012:q,triggerEvents=DeploymentStart", "InvalidTriggerConfig"),
        ("--trigger-configurations triggerName=t,triggerTargetArn=arn:aws:sns:eu-west-1:123456789012:q,triggerEvents=DeploymentStart", "InvalidTriggerConfig"),
        ("--trigger-configurations triggerName=t,triggerTargetArn=arn:aws:sns:us-east-1:123456789012:q,triggerEvents=Dinner", "InvalidTriggerConfig"),
        ("--deployment-config-name none", "DeploymentConfigDoesNotExist"),
        ("--deployment-config-name CodeDeployDefault.ECSAllAtOnce", "InvalidInput"),
        ("--outdated-instances-strategy LATER", "InvalidInput"),
        ("--auto-scaling-groups asg", "InvalidAutoScalingGroup"),
        ("--ecs-services serviceName=a,clusterName=b", "InvalidECSService"),
        ("--ec2-deployment-options autoScalingGroupProcessesToSuspend=Sleep", "InvalidAutoScalingGroupProcessToSuspend"),
        ("--blue-green-deployment-configuration '{}'", "InvalidBlueGreenDeploymentConfiguration"),
        ("--tags Key=aws:a,Value=b", "InvalidTagsToAdd"),
    ]:
        refused(f"{GROUP} never {options}", name)
    refused(GROUP.replace(ROLE, "role") + " never", "InvalidInput")
    refused(f"{GROUP} never".replace("shop", "none"), "ApplicationDoesNotExist")

    get = "get-deployment-group --application-name shop --deployment-group-name"
    info = ok(f"{get} web")["deploymentGroupInfo"]
    assert info == {
        "applicationName": "shop",
        "deploymentGroupId": web,
        "deploymentGroupName": "web",
        "deploymentConfigName": "CodeDeployDefault.OneAtATime",
        "ec2TagFilters": [],
        "onPremisesInstanceTagFilters": filters,
        "autoScalingGroups": [],
        "serviceRoleArn": ROLE,
        "triggerConfigurations": [],
        "autoRollbackConfiguration": {"enabled": False},
        "deploymentStyle": {"deploymentType": "IN_PLACE", "deploymentOption": "WITHOUT_TRAFFIC_CONTROL"},
        "outdatedInstancesStrategy": "UPDATE",
        "computePlatform": "Server",
        "terminationHookEnabled": False,
    }, info

    update = "update-deployment-group --application-name shop --current-deployment-group-name"
    rollback = "--auto-rollback-configuration enabled=true,events=DEPLOYMENT_FAILURE"
    assert ok(f"{update} web --new-deployment-group-name web2 {rollback}") == {"hooksNotCleanedUp": []}
    info = ok(f"{get} web2")["deploymentGroupInfo"]
    assert info["deploymentGroupId"] == web and info["onPremisesInstanceTagFilters"] == filters
    assert info["autoRollbackConfiguration"] == {"enabled": True, "events": ["DEPLOYMENT_FAILURE"]}
    refused(f"{update} web2 --new-deployment-group-name sets", "DeploymentGroupAlreadyExists")
    ok(f"{update} web2 --on-premises-tag-set '{tag_set(1)}'")
    info = ok(f"{get} web2")["deploymentGroupInfo"]
    assert "onPremisesInstanceTagFilters" not in info and info["onPremisesTagSet"]["onPremisesTagSetList"] == [filters]
    ok(f"{update} web2 {by_env}")
    ok(f"{update} web2 --on-premises-instance-tag-filters '[]'")
    info = ok(f"{get} web2")["deploymentGroupInfo"]
    assert info["onPremisesInstanceTagFilters"] == [] and "onPremisesTagSet" not in info, info
    cleared = "--alarm-configuration enabled=false,alarms=[] --auto-rollback-configuration enabled=false,events=[]"
    ok(f"{update} web2 {cleared} --trigger-configurations '[]'")
    ok(f"{update} web2 --new-deployment-group-name web {by_env}")

    blue_green = {
        "terminateBlueInstancesOnDeploymentSuccess": {"action": "KEEP_ALIVE"},
        "deploymentReadyOption": {"actionOnTimeout": "STOP_DEPLOYMENT", "waitTimeInMinutes": 5},
        "greenFleetProvisioningOption": {"action": "DISCOVER_EXISTING"},
    }
    ok(
        f"{GROUP} blue --deployment-style deploymentType=BLUE_GREEN,deploymentOption=WITH_TRAFFIC_CONTROL {ec2_set} "
        f"--load-balancer-info targetGroupInfoList=[{{name=tg}}] "
        f"--blue-green-deployment-configuration '{json.dumps(blue_green)}'"
    )
    info = ok(f"{get} blue")["deploymentGroupInfo"]
    assert info["blueGreenDeploymentConfiguration"] == blue_green, info
    assert info["loadBalancerInfo"] == {"targetGroupInfoList": [{"name": "tg"}]}, info
    for member, value in [
        ("deploymentReadyOption", {"actionOnTimeout": "STOP_DEPLOYMENT"}),
        ("deploymentReadyOption", {"actionOnTimeout": "CONTINUE_DEPLOYMENT", "waitTimeInMinutes": 1}),
        ("terminateBlueInstancesOnDeploymentSuccess", {"action": "TERMINATE", "terminationWaitTimeInMinutes": 2881}),
        ("greenFleetProvisioningOption", {"action": "COPY_AUTO_SCALING_GROUP"}),
    ]:
        wrong = json.dumps({**blue_green, member: value})
        refused(f"{update} blue --blue-green-deployment-configuration '{wrong}'", "InvalidBlueGreenDeploymentConfiguration")

    assert ok("list-deployment-groups --application-name shop")["deploymentGroups"] == ["blue", "sets", "web"]
    batch = ok("batch-get-deployment-groups --application-name shop --deployment-group-names web nope")
    assert len(batch["deploymentGroupsInfo"]) == 1 and "nope" in batch["errorMessage"]
    assert ok("batch-get-deployment-groups --application-name shop --deployment-group-names web")["errorMessage"] == ""
    for name in ["nope", "blue", "sets"]:
        gone = ok(f"delete-deployment-group --application-name shop --deployment-group-name {name}")
        assert gone == {"hooksNotCleanedUp": []}
    refused(f"{get} sets", "DeploymentGroupDoesNotExist")


def revisions():
    s3 = "bucket=bkt,key=app.zip,bundleType=zip"
    ok(f"register-application-revision --application-name shop --s3-location {s3},eTag=abc --description first")
    github = "repository=account/repository,commitId=" + "0123456789" * 4
    ok(f"register-application-revision --application-name shop --github-location {github}")
    get = "get-application-revision --application-name shop --s3-location"
    found = ok(f"{get} {s3},eTag=abc")
    assert found["revision"]["s3Location"] == {"bucket": "bkt", "key": "app.zip", "bundleType": "zip", "eTag": "abc"}
    assert found["revisionInfo"]["description"] == "first" and found["revisionInfo"]["deploymentGroups"] == []
    refused(f"{get} {s3},eTag=other", "RevisionDoesNotExist")
    refused(f"{get} {s3}", "RevisionDoesNotExist")
    register = "register-application-revision --application-name shop"
    refused(f"{register} --s3-location bucket=bkt,key=app.yml,bundleType=YAML", "InvalidRevision", "tar, tgz and zip")
    refused(f"{register} --github-location repository=account,commitId={'0' * 40}", "InvalidRevision")
    refused(f"{register} --github-location {github} --description {'x' * 257}", "DescriptionTooLong")
    listed = "list-application-revisions --application-name shop"
    by_prefix = ok(
        f"{listed} --sort-by registerTime --sort-order descending --s3-bucket bkt --s3-key-prefix app --deployed ignore"
    )
    assert [one["s3Location"]["key"] for one in by_prefix["revisions"]] == ["app.zip"]
    newest = ok(f"{listed} --sort-by registerTime --sort-order descending")["revisions"]
    assert [one["revisionType"] for one in newest] == ["GitHub", "S3"]
    assert ok(f"{listed} --deployed include")["revisions"] == []
    assert len(ok(f"{listed} --deployed exclude")["revisions"]) == 2
    refused(f"{listed} --s3-key-prefix app", "BucketNameFilterRequired")
    refused(f"{listed} --sort-by name", "InvalidSortBy")
    refused(f"{listed} --sort-order up", "InvalidSortOrder")
    refused(f"{listed} --deployed maybe", "InvalidDeployedStateFilter")
    both = json.dumps([found["revision"], {"revisionType": "S3", "s3Location": {"bucket": "b", "key": "k", "bundleType": "tar"}}])
    batch = ok(f"batch-get-application-revisions --application-name shop --revisions '{both}'")
    assert len(batch["revisions"]) == 1 and '"k"' in batch["errorMessage"]


def instances():
    arn = "arn:aws:iam::123456789012:user/AWS/CodeDeploy/rack1"
    session = "arn:aws:sts::123456789012:assumed-role/hosts/rack2"
    register = "register-on-premises-instance --instance-name"
    assert ok(f"{register} rack1 --iam-user-arn {arn}") is None
    refused(f"{register} rack1 --iam-user-arn {arn}", "InstanceNameAlreadyRegistered")
    refused(f"{register} rack2 --iam-user-arn {arn}", "IamUserArnAlreadyRegistered", "different")
    refused(f"{register} rack2 --iam-user-arn {arn}2 --iam-session-arn {session}", "MultipleIamArnsProvided")
    refused(f"{register} rack2", "IamArnRequired")
    refused(f"{register} i-123 --iam-user-arn {arn}2", "InvalidInstanceName")
    refused(f"{register} rack2 --iam-user-arn {ROLE}", "InvalidIamUserArn")
    refused(f"{register} rack2 --iam-session-arn {ROLE}", "InvalidIamSessionArn")
    ok(f"{register} rack2 --iam-session-arn {session}")
    refused(f"{register} rack3 --iam-session-arn {session}", "IamSessionArnAlreadyRegistered")

    add = "add-tags-to-on-premises-instances --instance-names"
    ok(f"{add} rack1 --tags Key=env,Value=stage")
    refused(f"{add} rack1 --tags " + " ".join(f"Key=k{n},Value=v" for n in range(11)), "TagLimitExceeded")
    refused(f"{add} rack1 ghost --tags Key=late,Value=x", "InstanceNotRegistered")
    refused(f"{add} rack1 --tags Value=x", "InvalidTag")
    info = ok("get-on-premises-instance --instance-name rack1")["instanceInfo"]
    assert info["tags"] == [{"Key": "env", "Value": "stage"}] and info["iamUserArn"] == arn, info
    assert re.fullmatch(r"arn:aws:codedeploy:us-east-1:123456789012:instance/rack1_\w{10}", info["instanceArn"])
    batch = ok("batch-get-on-premises-instances --instance-names rack1 rack2 ghost")["instanceInfos"]
    assert [one["instanceName"] for one in batch] == ["rack1", "rack2"] and batch[1]["iamSessionArn"] == session
    listed = "list-on-premises-instances --registration-status"
    by_tag = "--tag-filters Key=env,Value=stage,Type=KEY_AND_VALUE"
    assert ok(f"{listed} Registered {by_tag}")["instanceNames"] == ["rack1"]
    assert ok(f"{listed} Deregistered {by_tag}")["instanceNames"] == []
    refused(f"{listed} Gone", "InvalidRegistrationStatus")
    refused(f"{listed} Registered --tag-filters Type=KEY_ONLY", "InvalidTagFilter")

    ok("remove-tags-from-on-premises-instances --instance-names rack1 --tags Key=env,Value=stage")
    assert ok("get-on-premises-instance --instance-name rack1")["instanceInfo"]["tags"] == []
    for _ in range(2):
        assert ok("deregister-on-premises-instance --instance-name rack1") is None
    assert "deregisterTime" in ok("get-on-premises-instance --instance-name rack1")["instanceInfo"]
    assert ok(f"{listed} Deregistered")["instanceNames"] == ["rack1"]
    ok(f"{register} rack1 --iam-user-arn {arn}")
    assert ok(f"{listed} Deregistered")["instanceNames"] == []
    refused("get-on-premises-instance --instance-name ghost", "InstanceNotRegistered")

    # The helpers say ERROR and succeed all the same.
    for line in [
        "register --instance-name rack9 --iam-user-arn arn:aws:iam::123456789012:user/rack9 --tags Key=env,Value=stage",
        "deregister --instance-name rack9 --no-delete-iam-user",
    ]:
        answer = aws(f"{line} --region us-east-1")
        assert answer.code == 0 and "ERROR" not in answer.out + answer.err, answer
    assert "deregisterTime" in ok("get-on-premises-instance --instance-name rack9")["instanceInfo"]
    for name in ["rack1", "rack2"]:
        ok(f"deregister-on-premises-instance --instance-name {name}")


def tags():
    shop = "arn:aws:codedeploy:us-east-1:123456789012:application:shop"
    listed = "list-tags-for-resource --resource-arn"
    assert ok(f"{listed} {shop}")["Tags"] == [{"Key": "team", "Value": "a"}]
    assert ok(f"tag-resource --resource-arn {shop} --tags Key=a,Value=b Key=team,Value=c") is None
    assert ok(f"{listed} {shop}")["Tags"] == [{"Key": "team", "Value": "c"}, {"Key": "a", "Value": "b"}]
    assert ok(f"untag-resource --resource-arn {shop} --tag-keys a never") is None
    assert ok(f"{listed} {shop}")["Tags"] == [{"Key": "team", "Value": "c"}]
    web = "arn:aws:codedeploy:us-east-1:123456789012:deploymentgroup:shop/web"
    ok(f"tag-resource --resource-arn {web} --tags Key=a,Value=b")
    assert ok(f"{listed} {web}")["Tags"] == [{"Key": "a", "Value": "b"}]
    assert ok(f"{listed} {shop}x")["Tags"] == []
    refused(f"tag-resource --resource-arn {shop}x --tags Key=a,Value=b", "ApplicationDoesNotExist")
    refused(f"tag-resource --resource-arn {web}x --tags Key=a,Value=b", "DeploymentGroupDoesNotExist")
    refused(f"{listed} arn:aws:s3:::x", "ArnNotSupported")
    refused(f"{listed} notanarn", "InvalidArn")
    assert ok("list-git-hub-account-token-names")["tokenNameList"] == []
    refused("delete-git-hub-account-token --token-name t", "GitHubAccountTokenDoesNotExist")


def strangers():
    secret, key = os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["AWS_ACCESS_KEY_ID"]
    for line in ["list-applications", "get-application --application-name shop", "get-deployment --deployment-id d-X"]:
        os.environ["AWS_SECRET_ACCESS_KEY"] = "wrong"
        refused(line, "InvalidSignature")
        os.environ["AWS_ACCESS_KEY_ID"] = "AKIANOBODYKNOWSTHIS"
        refused(line, "UnrecognizedClient")
        os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["AWS_ACCESS_KEY_ID"] = secret, key


applications()
configurations()
groups()
revisions()
instances()
tags()
strangers()
