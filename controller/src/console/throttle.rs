//! Limits the failed logins of each client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::signals::lock;

/// The number of failures after which a client has to wait.
const MOST: usize = 10;

/// The time for which a failure counts.
const PERIOD: Duration = Duration::from_secs(10 * 60);

/// The number of clients that are known; beyond it, those with the oldest failures are forgotten.
const CLIENTS: usize = 10_000;

/// The failed logins of the last minutes, by client.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<IpAddr, Vec<Instant>>>);

impl Throttle {
    /// Returns the time that a client has to wait, if it failed too often.
    pub(super) fn wait(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        let mut clients = lock(&self.0);
        let failures = clients.get_mut(&network(client))?;
        failures.retain(|failure| now.duration_since(*failure) < PERIOD);
        let first = failures.len().checked_sub(MOST)?;
        let since = now.duration_since(*failures.get(first)?);
        Some(PERIOD.saturating_sub(since))
    }

    pub(super) fn failed(&self, client: IpAddr, now: Instant) {
        let mut clients = lock(&self.0);
        if clients.len() >= CLIENTS {
            clients.retain(|_, failures| {
                failures.retain(|failure| now.duration_since(*failure) < PERIOD);
                !failures.is_empty()
            });
            let oldest = clients
                .iter()
                .min_by_key(|(_, failures)| failures.last().copied());
            let oldest = oldest.map(|(client, _)| *client);
            if let Some(oldest) = oldest.filter(|_| clients.len() >= CLIENTS) {
                clients.remove(&oldest);
            }
        }
        let failures = clients.entry(network(client)).or_default();
        if failures.len() < MOST {
            failures.push(now);
        }
    }
}

/// A client may have all addresses of an IPv6 network.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(network.into())
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_failed_often_waits_and_others_do_not() {
        let throttle = Throttle::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (client, began) = (address("2001:db8::1"), Instant::now());
        let after = |seconds| began + Duration::from_secs(seconds);
        for second in 0..10 {
            assert_eq!(throttle.wait(client, after(second)), None);
            throttle.failed(client, after(second));
        }
        assert_eq!(
            throttle.wait(client, after(10)),
            Some(Duration::from_secs(590))
        );
        assert!(throttle.wait(address("2001:db8::2"), after(10)).is_some());
        assert_eq!(throttle.wait(address("2001:db8:1::1"), after(10)), None);
        assert_eq!(throttle.wait(client, after(600)), None);
    }

    #[test]
    fn the_number_of_known_clients_is_limited() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..=u32::try_from(CLIENTS).unwrap() {
            throttle.failed(
                IpAddr::V4(number.into()),
                now + Duration::from_millis(number.into()),
            );
        }
        assert_eq!(throttle.0.lock().unwrap().len(), CLIENTS);
        assert!(
            !throttle
                .0
                .lock()
                .unwrap()
                .contains_key(&IpAddr::V4(0.into()))
        );
    }
}
