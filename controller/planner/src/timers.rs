//! How long the service waits for what.

use std::time::Duration;

/// How long the service waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// A poll without a command is answered after this time.
    pub poll: Duration,
    /// A client must have sent a request within this time, once for its head and once for its body.
    pub request: Duration,
    /// A command handed out and not acknowledged is handed out again after this time.
    pub lease: Duration,
    /// A command that no host acknowledged fails after this time.
    pub pick_up: Duration,
    /// An acknowledged command that is not completed fails after this time.
    pub run: Duration,
    /// A deployment that has not ended fails after this time.
    pub deployment: Duration,
    /// The same for a deployment that moves traffic between two fleets, with the time it waits to be continued.
    pub blue_green: Duration,
    /// A load balancer that has not done what it was asked to fails the lifecycle event after this time.
    pub traffic: Duration,
    /// The alarms of active deployments are looked at this often.
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
