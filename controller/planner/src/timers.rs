//! The timeouts of the service.

use std::time::Duration;

/// The timeouts of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// A poll is answered without a command after this time.
    pub poll: Duration,
    /// A client must send a request within this time, once for its head and once for its body.
    pub request: Duration,
    /// A leased command that is not acknowledged is leased again after this time.
    pub lease: Duration,
    /// A command that no host acknowledged fails after this time.
    pub pick_up: Duration,
    /// An acknowledged command that is not completed fails after this time.
    pub run: Duration,
    /// A deployment that has not ended fails after this time.
    pub deployment: Duration,
    /// The same for a deployment that moves traffic between two fleets, including its wait for
    /// somebody to let it continue.
    pub blue_green: Duration,
    /// A load balancer's lifecycle event fails after this time.
    pub traffic: Duration,
    /// The interval between checks of active deployments' alarms.
    pub alarms: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            poll: Duration::from_secs(45),
            request: Duration::from_secs(30),
            lease: Duration::from_secs(60),
            pick_up: Duration::from_secs(5 * 60),
            run: Duration::from_secs(4200),
            deployment: Duration::from_secs(8 * 3600),
            blue_green: Duration::from_secs(109 * 3600),
            traffic: Duration::from_secs(3600),
            alarms: Duration::from_secs(10),
        }
    }
}
