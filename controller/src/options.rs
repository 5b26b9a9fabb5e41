//! The checked options of deployments and deployment groups: each has typed values, and keeps the
//! form in which clients set and see it.

use codedeploy_api::codedeploy::{
    AlarmConfiguration, AutoRollbackConfiguration, AutoRollbackEvent,
    BlueGreenDeploymentConfiguration, DeploymentOption, DeploymentReadyAction, DeploymentStyle,
    DeploymentType, FileExistsBehavior, GreenFleetProvisioningAction, InstanceAction,
    LoadBalancerInfo, TargetInstances,
};
use codedeploy_planner::rollback::AutoRollback as Endings;
use codedeploy_planner::rules::MonitoredAlarms;
use codedeploy_planner::strategy::Strategy;

use crate::fleet::{Filters, Membership};

/// The fleet that gets the revision, and whether it is taken out of its load balancers meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    InPlace,
    InPlaceWithTrafficControl,
    BlueGreen,
}

impl Style {
    /// The default is in place without traffic control.
    pub(crate) fn of(given: Option<&DeploymentStyle>) -> Self {
        let kind = given.and_then(|style| style.deployment_type.as_ref());
        let option = given.and_then(|style| style.deployment_option.as_ref());
        match (kind, option) {
            (Some(DeploymentType::BlueGreen), _) => Style::BlueGreen,
            (_, Some(DeploymentOption::WithTrafficControl)) => Style::InPlaceWithTrafficControl,
            _ => Style::InPlace,
        }
    }

    pub(crate) fn kind(self) -> DeploymentType {
        match self {
            Style::InPlace | Style::InPlaceWithTrafficControl => DeploymentType::InPlace,
            Style::BlueGreen => DeploymentType::BlueGreen,
        }
    }

    pub(crate) fn shifts_traffic(self) -> bool {
        self != Style::InPlace
    }
}

impl From<Style> for DeploymentStyle {
    fn from(style: Style) -> Self {
        let option = if style.shifts_traffic() {
            DeploymentOption::WithTrafficControl
        } else {
            DeploymentOption::WithoutTrafficControl
        };
        DeploymentStyle {
            deployment_type: Some(style.kind()),
            deployment_option: Some(option),
        }
    }
}

/// The behaviour of Install with a file that no deployment created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileExists {
    Disallow,
    Overwrite,
    Retain,
}

impl FileExists {
    /// Returns the requested behaviour; `None` for an unknown text.
    pub(crate) fn of(given: Option<&FileExistsBehavior>) -> Option<Self> {
        match given {
            None | Some(FileExistsBehavior::Disallow) => Some(FileExists::Disallow),
            Some(FileExistsBehavior::Overwrite) => Some(FileExists::Overwrite),
            Some(FileExistsBehavior::Retain) => Some(FileExists::Retain),
            Some(FileExistsBehavior::Other(_)) => None,
        }
    }
}

impl From<FileExists> for FileExistsBehavior {
    fn from(behavior: FileExists) -> Self {
        match behavior {
            FileExists::Disallow => FileExistsBehavior::Disallow,
            FileExists::Overwrite => FileExistsBehavior::Overwrite,
            FileExists::Retain => FileExistsBehavior::Retain,
        }
    }
}

/// Options that keep their original shape.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident($shape:ident);)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name($shape);

        impl $name {
            /// Wraps a checked shape, from the present request or from an earlier one that stored
            /// it.
            pub(crate) fn checked(shape: $shape) -> Self {
                $name(shape)
            }

            /// The form that is stored and returned.
            pub(crate) fn into_shape(self) -> $shape {
                self.0
            }
        }
    )*};
}

options! {
    /// The endings after which a deployment is rolled back automatically.
    AutoRollback(AutoRollbackConfiguration);
    /// The alarms that stop a deployment.
    Alarms(AlarmConfiguration);
    /// The load balancers in front of a deployment group.
    LoadBalancers(LoadBalancerInfo);
    /// The replacement instances of a blue/green deployment.
    Replacement(TargetInstances);
    /// The waits of a blue/green deployment.
    BlueGreen(BlueGreenDeploymentConfiguration);
}

impl AutoRollback {
    pub(crate) fn endings(&self) -> Endings {
        let AutoRollback(AutoRollbackConfiguration { enabled, events }) = self;
        let on = |event: AutoRollbackEvent| {
            *enabled == Some(true) && events.iter().flatten().any(|e| *e == event)
        };
        Endings {
            on_failure: on(AutoRollbackEvent::DeploymentFailure),
            on_alarm: on(AutoRollbackEvent::DeploymentStopOnAlarm),
            on_request: on(AutoRollbackEvent::DeploymentStopOnRequest),
        }
    }
}

impl Alarms {
    /// The names of the alarms, if they are enabled.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let Alarms(AlarmConfiguration {
            enabled, alarms, ..
        }) = self;
        let alarms = alarms.iter().filter(|_| *enabled == Some(true)).flatten();
        alarms.filter_map(|alarm| alarm.name.as_deref())
    }

    /// The alarms to monitor while a deployment runs, if any is enabled.
    pub(crate) fn monitored(&self) -> Option<MonitoredAlarms> {
        let names: Vec<_> = self.names().map(str::to_owned).collect();
        let ignore_poll_failure = self.0.ignore_poll_alarm_failure == Some(true);
        (!names.is_empty()).then_some(MonitoredAlarms {
            names,
            ignore_poll_failure,
        })
    }
}

impl LoadBalancers {
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.0).flatten().map(str::to_owned).collect()
    }
}

/// The name of each load balancer in the three lists.
pub(crate) fn names(info: &LoadBalancerInfo) -> impl Iterator<Item = Option<&str>> {
    let pairs = info.target_group_pair_info_list.iter().flatten();
    let of_pairs = pairs.flat_map(|pair| pair.target_groups.iter().flatten());
    let groups = info.target_group_info_list.iter().flatten().chain(of_pairs);
    let balancers = info
        .elb_info_list
        .iter()
        .flatten()
        .map(|elb| elb.name.as_deref());
    balancers.chain(groups.map(|group| group.name.as_deref()))
}

impl Replacement {
    pub(crate) fn membership(&self) -> Membership {
        let Replacement(TargetInstances {
            tag_filters,
            ec2_tag_set,
            ..
        }) = self;
        let sets = ec2_tag_set
            .as_ref()
            .and_then(|set| set.ec2_tag_set_list.as_ref());
        Membership::of_any(&[Filters {
            flat: tag_filters.as_deref().unwrap_or_default(),
            set: sets.map(Vec::as_slice).unwrap_or_default(),
        }])
    }
}

impl BlueGreen {
    /// Whether the replacement instances are a copy of an Auto Scaling group.
    pub(crate) fn copies_auto_scaling_group(&self) -> bool {
        let option = self.0.green_fleet_provisioning_option.as_ref();
        option.and_then(|option| option.action.as_ref())
            == Some(&GreenFleetProvisioningAction::CopyAutoScalingGroup)
    }

    pub(crate) fn strategy(&self) -> Strategy {
        let minutes = |minutes: Option<i64>| u32::try_from(minutes.unwrap_or(0)).unwrap_or(0);
        let ready = self.0.deployment_ready_option.as_ref();
        let waits = ready
            .filter(|ready| ready.action_on_timeout == Some(DeploymentReadyAction::StopDeployment));
        let blue = self
            .0
            .terminate_blue_instances_on_deployment_success
            .as_ref();
        // AWS terminates them by default; here, nobody should lose hosts by omitting a member.
        let retires = blue.filter(|blue| blue.action == Some(InstanceAction::Terminate));
        Strategy::BlueGreen {
            wait_minutes: waits.map(|ready| minutes(ready.wait_time_in_minutes)),
            retire_minutes: retires.map(|blue| minutes(blue.termination_wait_time_in_minutes)),
        }
    }
}
