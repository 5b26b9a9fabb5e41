//! The settings of a deployment group in words, with their defaults.

use codedeploy_api::codedeploy::{
    AutoRollbackEvent, DeploymentConfigInfo, DeploymentGroupInfo, DeploymentOption,
    DeploymentReadyAction, DeploymentType, InstanceAction, MinimumHealthyHosts,
    MinimumHealthyHostsType, OutdatedInstancesStrategy, TagFilter,
};

/// A setting and its value.
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) value: String,
}

/// All settings that have an effect.
pub(super) fn settings(
    info: &DeploymentGroupInfo,
    config: Option<&DeploymentConfigInfo>,
) -> Vec<Setting> {
    let rows = [
        ("Hosts", Some(hosts(info))),
        ("Type", Some(style(info))),
        ("Order", Some(order(info, config))),
        ("Load balancers", balancers(info)),
        ("Replacement", replacement(info)),
        ("Automatic rollback", Some(rollback(info))),
        ("Alarms", Some(alarms(info))),
        (
            "Hosts that missed a deployment",
            Some(match info.outdated_instances_strategy {
                Some(OutdatedInstancesStrategy::Ignore) => "stay as they are".to_owned(),
                _ => "are brought up to date after a deployment".to_owned(),
            }),
        ),
        ("Triggers", triggers(info)),
    ];
    let rows = rows.into_iter();
    rows.filter_map(|(name, value)| {
        Some(Setting {
            name,
            value: value?,
        })
    })
    .collect()
}

fn hosts(info: &DeploymentGroupInfo) -> String {
    let flat = [
        &info.ec2_tag_filters,
        &info.on_premises_instance_tag_filters,
    ];
    let flat = flat.into_iter().flatten().filter(|list| !list.is_empty());
    let sets = [
        info.ec2_tag_set
            .as_ref()
            .and_then(|set| set.ec2_tag_set_list.clone()),
        info.on_premises_tag_set
            .as_ref()
            .and_then(|set| set.on_premises_tag_set_list.clone()),
    ];
    let sets = sets.into_iter().flatten().filter(|set| !set.is_empty());
    let sets = sets.map(|set| {
        let lists: Vec<String> = set.iter().map(|list| any_of(list)).collect();
        lists.join(" and ")
    });
    let all: Vec<String> = flat.map(|list| any_of(list)).chain(sets).collect();
    match all.is_empty() {
        true => "none: the group has no tag filter".to_owned(),
        false => all.join("; or "),
    }
}

fn any_of(filters: &[TagFilter]) -> String {
    let filters = filters
        .iter()
        .map(|filter| match (&filter.key, &filter.value) {
            (Some(key), Some(value)) => format!("{key}={value}"),
            (Some(key), None) => format!("{key} (any value)"),
            (None, Some(value)) => format!("any tag with the value {value}"),
            (None, None) => String::new(),
        });
    let filters: Vec<String> = filters.collect();
    match filters.as_slice() {
        [one] => one.clone(),
        several => format!("({})", several.join(" or ")),
    }
}

fn style(info: &DeploymentGroupInfo) -> String {
    let style = info.deployment_style.clone().unwrap_or_default();
    let kind = match style.deployment_type {
        Some(DeploymentType::BlueGreen) => "blue/green",
        _ => "in place",
    };
    let traffic = match style.deployment_option {
        Some(DeploymentOption::WithTrafficControl) => "with traffic control",
        _ => "without traffic control",
    };
    format!("{kind}, {traffic}")
}

fn order(info: &DeploymentGroupInfo, config: Option<&DeploymentConfigInfo>) -> String {
    let name = info.deployment_config_name.clone().unwrap_or_default();
    let minimum = config.and_then(|config| config.minimum_healthy_hosts.as_ref());
    let minimum = minimum.map(|minimum| format!(": {}", healthy(minimum)));
    format!("{name}{}", minimum.unwrap_or_default())
}

fn healthy(minimum: &MinimumHealthyHosts) -> String {
    let value = minimum.value.unwrap_or_default();
    match (&minimum.kind, value) {
        (_, 0) if minimum.kind.is_some() => "all hosts at once".to_owned(),
        (Some(MinimumHealthyHostsType::HostCount), 1) => "1 host stays healthy".to_owned(),
        (Some(MinimumHealthyHostsType::HostCount), count) => format!("{count} hosts stay healthy"),
        (Some(MinimumHealthyHostsType::FleetPercent), percent) => {
            format!("{percent}% of the hosts stay healthy")
        }
        _ => "all other hosts stay healthy".to_owned(),
    }
}

fn balancers(info: &DeploymentGroupInfo) -> Option<String> {
    let info = info.load_balancer_info.as_ref()?;
    let classic = info.elb_info_list.iter().flatten();
    let classic = classic.filter_map(|one| one.name.clone());
    let groups = info.target_group_info_list.iter().flatten();
    let groups = groups.filter_map(|one| one.name.clone());
    let names: Vec<String> = classic.chain(groups).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn replacement(info: &DeploymentGroupInfo) -> Option<String> {
    let settings = info.blue_green_deployment_configuration.as_ref()?;
    let ready = settings.deployment_ready_option.clone().unwrap_or_default();
    let ready = match ready.action_on_timeout {
        Some(DeploymentReadyAction::StopDeployment) => format!(
            "waits up to {} minutes for somebody to continue it",
            ready.wait_time_in_minutes.unwrap_or_default()
        ),
        _ => "moves the traffic at once".to_owned(),
    };
    let end = settings
        .terminate_blue_instances_on_deployment_success
        .clone();
    let end = end.unwrap_or_default();
    let end = match end.action {
        Some(InstanceAction::KeepAlive) => "keeps the original hosts".to_owned(),
        _ => format!(
            "deregisters the original hosts after {} minutes",
            end.termination_wait_time_in_minutes.unwrap_or_default()
        ),
    };
    Some(format!("{ready}; {end}"))
}

fn rollback(info: &DeploymentGroupInfo) -> String {
    let settings = info.auto_rollback_configuration.clone().unwrap_or_default();
    if settings.enabled != Some(true) {
        return "off".to_owned();
    }
    let events = settings.events.unwrap_or_default();
    let events: Vec<&str> = events
        .iter()
        .map(|event| match event {
            AutoRollbackEvent::DeploymentFailure => "when a deployment fails",
            AutoRollbackEvent::DeploymentStopOnAlarm => "when an alarm stops it",
            AutoRollbackEvent::DeploymentStopOnRequest => "when somebody stops it",
            other => other.as_str(),
        })
        .collect();
    events.join(", ")
}

fn alarms(info: &DeploymentGroupInfo) -> String {
    let settings = info.alarm_configuration.clone().unwrap_or_default();
    let names = settings.alarms.unwrap_or_default();
    if settings.enabled != Some(true) || names.is_empty() {
        return "off".to_owned();
    }
    let unreadable = match settings.ignore_poll_alarm_failure {
        Some(true) => "is ignored",
        _ => "stops it, too",
    };
    format!("an active one stops a deployment; one that cannot be read {unreadable}")
}

fn triggers(info: &DeploymentGroupInfo) -> Option<String> {
    let triggers = info.trigger_configurations.iter().flatten();
    let triggers: Vec<String> = triggers
        .map(|trigger| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let events = trigger.trigger_events.iter().flatten();
            let events: Vec<&str> = events.map(|event| event.as_str()).collect();
            format!(
                "{} to {} ({})",
                text(&trigger.trigger_name),
                text(&trigger.trigger_target_arn),
                events.join(", ")
            )
        })
        .collect();
    (!triggers.is_empty()).then(|| triggers.join("; "))
}
