//! The messages to systemd: readiness, watchdog, and status text. Without systemd, nothing is sent.

use std::pin::pin;
use std::sync::Once;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, sleep_until};

/// The extension that a stop in progress requests from systemd at a time, and the interval of
/// requests.
const EXTENSION: Duration = Duration::from_secs(300);
const ASK_EVERY: Duration = Duration::from_secs(60);

/// Sends watchdog messages while the poll loop makes progress: during a step of the loop, and only
/// as long as that step may take.
#[derive(Debug)]
pub struct Watchdog {
    /// The interval of messages; `None` if systemd does not expect any.
    every: Option<Duration>,
    next: Instant,
}

impl Watchdog {
    /// Returns the watchdog that systemd set for this process.
    pub fn of_process() -> Self {
        let mut microseconds = 0;
        let asked = sd_notify::watchdog_enabled(false, &mut microseconds);
        Self::new(asked.then(|| Duration::from_micros(microseconds)))
    }

    fn new(deadline: Option<Duration>) -> Self {
        Self {
            every: deadline.map(|deadline| deadline / 2),
            next: Instant::now(),
        }
    }

    /// Awaits one step of the loop. If it takes longer than `at_most`, the messages stop, and
    /// systemd restarts the agent; `None` means no limit.
    pub async fn over<T>(&mut self, at_most: Option<Duration>, step: impl Future<Output = T>) -> T {
        self.over_telling(at_most, step, || notify(&[NotifyState::Watchdog]))
            .await
    }

    async fn over_telling<T>(
        &mut self,
        at_most: Option<Duration>,
        step: impl Future<Output = T>,
        mut tell: impl FnMut(),
    ) -> T {
        let Some(every) = self.every else {
            return step.await;
        };
        let began = Instant::now();
        let mut step = pin!(step);
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.next) => {
                    if at_most.is_some_and(|at_most| began.elapsed() > at_most) {
                        return step.await;
                    }
                    tell();
                    self.next = Instant::now() + every;
                }
                done = &mut step => return done,
            }
        }
    }
}

static READY: Once = Once::new();

/// Sends readiness once: the service was reached.
pub fn ready() {
    READY.call_once(|| {
        notify(&[
            NotifyState::Ready,
            NotifyState::Status("waiting for deployments"),
        ])
    });
}

/// Whether readiness was sent.
pub fn is_ready() -> bool {
    READY.is_completed()
}

pub fn status(text: &str) {
    notify(&[NotifyState::Status(text)]);
}

/// Awaits the end of `commands` in progress, `count` of them, and extends systemd's timeout
/// meanwhile.
pub async fn stopping(count: usize, commands: impl Future<Output = ()>) {
    let text = match count {
        0 => "stopping".to_owned(),
        1 => "stopping; the command in progress is finished first".to_owned(),
        _ => format!("stopping; the {count} commands in progress are finished first"),
    };
    notify(&[NotifyState::Stopping, NotifyState::Status(&text)]);
    let mut commands = pin!(commands);
    loop {
        let extension = u32::try_from(EXTENSION.as_micros()).unwrap_or(u32::MAX);
        notify(&[NotifyState::ExtendTimeoutUsec(extension)]);
        if tokio::time::timeout(ASK_EVERY, &mut commands).await.is_ok() {
            return;
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(600);

    /// The number of messages during a loop of `steps`, each with its allowed and its actual time.
    async fn told(watchdog: &mut Watchdog, steps: &[(Option<u64>, u64)]) -> usize {
        let mut told = 0;
        for (at_most, seconds) in steps {
            let step = tokio::time::sleep(Duration::from_secs(*seconds));
            watchdog
                .over_telling(at_most.map(Duration::from_secs), step, || told += 1)
                .await;
        }
        told
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_goes_round_is_told_twice_per_deadline_however_often_it_does() {
        let mut watchdog = Watchdog::new(Some(DEADLINE));
        assert_eq!(told(&mut watchdog, &[(Some(1), 1); 1201]).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_may_take_any_time_is_told_as_life() {
        let mut watchdog = Watchdog::new(Some(DEADLINE));
        assert_eq!(told(&mut watchdog, &[(None, 3001)]).await, 11);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_hangs_is_not_told_as_life_until_it_ends() {
        let mut watchdog = Watchdog::new(Some(DEADLINE));
        assert_eq!(told(&mut watchdog, &[(Some(400), 90_000)]).await, 2);
        assert_eq!(told(&mut watchdog, &[(Some(1), 1)]).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watchdog_nothing_is_told() {
        let mut watchdog = Watchdog::new(None);
        assert_eq!(told(&mut watchdog, &[(Some(1), 3000)]).await, 0);
    }
}
