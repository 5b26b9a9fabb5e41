//! The lifecycle events of a local deployment and their order.

use codedeploy_api::lifecycle::LifecycleEvent::{self, *};
use codedeploy_hooks::appspec::closest;

use crate::cli::local::arguments::UsageError;

/// The events that run by default: all but those that a service performs with its load balancer.
fn default_order() -> Vec<LifecycleEvent> {
    LifecycleEvent::standard()
        .filter(|event| !matches!(event, BlockTraffic | AllowTraffic))
        .collect()
}

const BEFORE_DOWNLOAD: [LifecycleEvent; 3] =
    [BeforeBlockTraffic, AfterBlockTraffic, ApplicationStop];
const BEFORE_INSTALL: [LifecycleEvent; 5] = [
    BeforeBlockTraffic,
    AfterBlockTraffic,
    ApplicationStop,
    DownloadBundle,
    BeforeInstall,
];

/// Returns the events in `named`, comma-separated, in that order; DownloadBundle and Install come
/// first unless they are listed.
pub(super) fn order(named: Option<&str>) -> Result<Vec<LifecycleEvent>, UsageError> {
    let mut events = Vec::new();
    for name in named
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let event: LifecycleEvent = name.parse().map_err(|problem| UsageError::EventName {
            problem,
            nearest: nearest(name),
        })?;
        if matches!(event, BlockTraffic | AllowTraffic) {
            return Err(UsageError::ServiceEvent { event });
        }
        events.push(event);
    }
    // An empty list counts as absent.
    if events.is_empty() {
        return Ok(default_order());
    }
    if !events.contains(&Install) {
        let after_download = events
            .iter()
            .position(|event| *event == DownloadBundle)
            .map_or(0, |index| index + 1);
        events.insert(after_download, Install);
    }
    if !events.contains(&DownloadBundle) {
        events.insert(0, DownloadBundle);
    }
    only_before(&events, DownloadBundle, &BEFORE_DOWNLOAD)?;
    only_before(&events, Install, &BEFORE_INSTALL)?;
    Ok(events)
}

/// Rejects an unknown event. `defined` are the events with scripts in the AppSpec file; if that
/// file is not known, only names that resemble a standard event are rejected.
pub(super) fn check_known(
    order: &[LifecycleEvent],
    defined: Option<&[LifecycleEvent]>,
) -> Result<(), UsageError> {
    for event in order.iter().filter(|event| is_custom(event)) {
        let of_appspec = || closest(event.name(), defined?.iter().map(LifecycleEvent::name));
        let unknown = match defined {
            Some(defined) => !defined.contains(event),
            None => nearest(event.name()).is_some(),
        };
        if unknown {
            let nearest = nearest(event.name()).or_else(of_appspec).map(str::to_owned);
            return Err(UsageError::UnknownEvent {
                event: event.clone(),
                nearest,
            });
        }
    }
    Ok(())
}

pub(super) fn is_custom(event: &LifecycleEvent) -> bool {
    matches!(event, Custom(_))
}

/// The standard event that `name` most likely misspells.
fn nearest(name: &str) -> Option<&'static str> {
    closest(name, LifecycleEvent::standard_names())
}

fn only_before(
    events: &[LifecycleEvent],
    limit: LifecycleEvent,
    allowed: &[LifecycleEvent],
) -> Result<(), UsageError> {
    let is_allowed =
        |event: &LifecycleEvent| allowed.contains(event) || limit == Install && is_custom(event);
    let mut before = events.iter().take_while(|event| **event != limit);
    match before.find(|event| !is_allowed(event)) {
        Some(event) => Err(UsageError::EventOrder {
            event: event.clone(),
            limit,
            allowed: allowed.to_vec(),
        }),
        None => Ok(()),
    }
}

/// All events that an AppSpec may name: the standard ones, and those in `order`.
pub(super) fn possible(order: &[LifecycleEvent]) -> Vec<LifecycleEvent> {
    let custom = order.iter().filter(|event| is_custom(event)).cloned();
    LifecycleEvent::standard().chain(custom).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(named: &str) -> Result<String, String> {
        let events = order(Some(named)).map_err(|error| error.to_string())?;
        Ok(events
            .iter()
            .map(LifecycleEvent::name)
            .collect::<Vec<_>>()
            .join(","))
    }

    #[test]
    fn download_and_install_come_first_unless_they_are_named() {
        assert_eq!(
            names("ValidateService").unwrap(),
            "DownloadBundle,Install,ValidateService"
        );
        assert_eq!(
            names("ApplicationStop,Install").unwrap(),
            "DownloadBundle,ApplicationStop,Install"
        );
        assert_eq!(
            names("ApplicationStop, DownloadBundle").unwrap(),
            "ApplicationStop,DownloadBundle,Install"
        );
        assert_eq!(
            names("DownloadBundle,Install,WarmUp").unwrap(),
            "DownloadBundle,Install,WarmUp"
        );
        assert_eq!(
            names("WarmUp,Install").unwrap(),
            "DownloadBundle,WarmUp,Install"
        );
    }

    #[test]
    fn an_empty_list_is_no_list() {
        for empty in ["", ",", " , "] {
            assert_eq!(
                order(Some(empty)).unwrap(),
                order(None).unwrap(),
                "{empty:?}"
            );
        }
    }

    #[test]
    fn an_event_that_nobody_knows_is_refused_with_the_nearest_name() {
        let check = |named: &str, defined: Option<&[&str]>| {
            let defined = defined.map(|names| {
                names
                    .iter()
                    .map(|name| name.parse().unwrap())
                    .collect::<Vec<_>>()
            });
            let checked = check_known(&order(Some(named)).unwrap(), defined.as_deref());
            checked.map_err(|error| error.to_string())
        };
        for (named, meant) in [
            ("AplicationStart", "ApplicationStart"),
            ("applicationstart", "ApplicationStart"),
            ("After-Install", "AfterInstall"),
            ("ValidateServices", "ValidateService"),
        ] {
            for defined in [None, Some(&["WarmUp"][..])] {
                let message = check(named, defined).unwrap_err();
                assert!(
                    message.ends_with(&format!("did you mean {meant}?")),
                    "{message}"
                );
            }
            assert_eq!(
                check(named, Some(&[named])),
                Ok(()),
                "the AppSpec file has it"
            );
        }
        assert!(
            check("WarmUpp", Some(&["WarmUp"]))
                .unwrap_err()
                .ends_with("did you mean WarmUp?")
        );
        assert_eq!(check("WarmUp", None), Ok(()));
        assert!(
            names("After Install")
                .unwrap_err()
                .ends_with("did you mean AfterInstall?")
        );
    }

    #[test]
    fn an_impossible_order_is_refused_with_the_possible_one() {
        let message = names("BeforeInstall,DownloadBundle,Install").unwrap_err();
        assert!(
            message.contains("BeforeInstall cannot come before DownloadBundle"),
            "{message}"
        );
        assert!(
            names("ApplicationStart,Install")
                .unwrap_err()
                .contains("ApplicationStart cannot come before Install")
        );
        assert!(
            names("WarmUp,DownloadBundle")
                .unwrap_err()
                .contains("WarmUp cannot come before DownloadBundle")
        );
        assert!(names("AllowTraffic").unwrap_err().contains("AllowTraffic"));
        assert!(names("a b").is_err());
    }
}
