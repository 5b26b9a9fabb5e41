//! The lifecycle events of a local deployment and their order.

use codedeploy_api::lifecycle::LifecycleEvent::{self, *};

use super::arguments::UsageError;

/// What runs when nobody names events: all but what a service does with its load balancer.
fn default_order() -> Vec<LifecycleEvent> {
    LifecycleEvent::standard().filter(|event| !matches!(event, BlockTraffic | AllowTraffic)).collect()
}

const BEFORE_DOWNLOAD: [LifecycleEvent; 3] = [BeforeBlockTraffic, AfterBlockTraffic, ApplicationStop];
const BEFORE_INSTALL: [LifecycleEvent; 5] =
    [BeforeBlockTraffic, AfterBlockTraffic, ApplicationStop, DownloadBundle, BeforeInstall];

/// The events in `named`, comma-separated, in that order; DownloadBundle and Install come first when not named.
pub(super) fn order(named: Option<&str>) -> Result<Vec<LifecycleEvent>, UsageError> {
    let Some(named) = named else {
        return Ok(default_order());
    };
    let mut events = Vec::new();
    for name in named.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let event: LifecycleEvent = name.parse().map_err(|source| UsageError::EventName { source })?;
        if matches!(event, BlockTraffic | AllowTraffic) {
            return Err(UsageError::ServiceEvent { event });
        }
        events.push(event);
    }
    if !events.contains(&Install) {
        let after_download =
            events.iter().position(|event| *event == DownloadBundle).map_or(0, |index| index + 1);
        events.insert(after_download, Install);
    }
    if !events.contains(&DownloadBundle) {
        events.insert(0, DownloadBundle);
    }
    only_before(&events, DownloadBundle, &BEFORE_DOWNLOAD)?;
    only_before(&events, Install, &BEFORE_INSTALL)?;
    Ok(events)
}

fn only_before(
    events: &[LifecycleEvent],
    limit: LifecycleEvent,
    allowed: &[LifecycleEvent],
) -> Result<(), UsageError> {
    let before = events.iter().take_while(|event| **event != limit);
    match before.clone().find(|event| !allowed.contains(event)) {
        Some(event) => Err(UsageError::EventOrder { event: event.clone(), limit, allowed: allowed.to_vec() }),
        None => Ok(()),
    }
}

/// Every event that an AppSpec may name: the standard ones, and what was asked for.
pub(super) fn possible(order: &[LifecycleEvent]) -> Vec<LifecycleEvent> {
    let custom = order.iter().filter(|event| matches!(event, Custom(_))).cloned();
    LifecycleEvent::standard().chain(custom).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(named: &str) -> Result<String, String> {
        let events = order(Some(named)).map_err(|error| error.to_string())?;
        Ok(events.iter().map(LifecycleEvent::name).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn download_and_install_come_first_unless_they_are_named() {
        assert_eq!(names("ValidateService").unwrap(), "DownloadBundle,Install,ValidateService");
        assert_eq!(names("ApplicationStop,Install").unwrap(), "DownloadBundle,ApplicationStop,Install");
        assert_eq!(
            names("ApplicationStop, DownloadBundle").unwrap(),
            "ApplicationStop,DownloadBundle,Install"
        );
        assert_eq!(names("DownloadBundle,Install,WarmUp").unwrap(), "DownloadBundle,Install,WarmUp");
    }

    #[test]
    fn an_impossible_order_is_refused_with_the_possible_one() {
        let message = names("BeforeInstall,DownloadBundle,Install").unwrap_err();
        assert!(message.contains("BeforeInstall cannot come before DownloadBundle"), "{message}");
        assert!(
            names("ApplicationStart,Install")
                .unwrap_err()
                .contains("ApplicationStart cannot come before Install")
        );
        assert!(names("AllowTraffic").unwrap_err().contains("AllowTraffic"));
        assert!(names("a b").is_err());
    }
}
