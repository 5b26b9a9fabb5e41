//! Hosts, good and bad.

use codedeploy_api::command::HostCommand;
use fastrand::Rng;

/// The faults of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    Good,
    /// Rarely acts.
    Slow,
    /// Never acts.
    Dead,
    /// Stops for ever after this number of steps.
    Dying(u32),
    /// Scripts fail occasionally.
    Failing,
    /// Polls without end, and forgets its commands.
    Forgetful,
    /// Completes twice with opposite results, acknowledges ended commands, and tries commands of
    /// other hosts.
    Lying,
    /// Its agent crashes in the middle of commands and reports them as failed after its restart.
    Crashing,
}

impl Temper {
    pub(crate) fn draw(rng: &mut Rng) -> Temper {
        match rng.u32(0..20) {
            0..=8 => Temper::Good,
            9..=10 => Temper::Slow,
            11 => Temper::Dead,
            12 => Temper::Dying(rng.u32(1..30)),
            13..=15 => Temper::Failing,
            16 => Temper::Forgetful,
            17..=18 => Temper::Lying,
            _ => Temper::Crashing,
        }
    }
}

/// A command as an agent keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) command: HostCommand,
    pub(crate) acknowledged: bool,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) identifier: String,
    pub(crate) temper: Temper,
    pub(crate) held: Vec<Held>,
    /// Completed commands, which a lying host repeats.
    pub(crate) past: Vec<String>,
    pub(crate) steps: u32,
    /// Its long poll would now get a response.
    pub(crate) woken: bool,
    /// It sometimes polls without being woken.
    pub(crate) polls_unasked: bool,
}

/// The next action of a host.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    Nothing,
    Poll,
    Specify(usize),
    Acknowledge(usize),
    Complete {
        held: usize,
        succeeded: bool,
    },
    Forget(usize),
    /// Reports about a command that it completed, or that belongs to another host.
    Lie {
        command: String,
        acknowledge: bool,
        succeeded: bool,
    },
}

impl Host {
    pub(crate) fn new(
        name: String,
        identifier: String,
        temper: Temper,
        polls_unasked: bool,
    ) -> Host {
        let (held, past) = (Vec::new(), Vec::new());
        Host {
            name,
            identifier,
            temper,
            held,
            past,
            steps: 0,
            woken: true,
            polls_unasked,
        }
    }

    pub(crate) fn next(&mut self, rng: &mut Rng, foreign: Option<&String>) -> Deed {
        self.steps += 1;
        match self.temper {
            Temper::Dead => return Deed::Nothing,
            Temper::Dying(steps) if self.steps > steps => return Deed::Nothing,
            Temper::Slow if rng.u32(0..10) > 0 => return Deed::Nothing,
            Temper::Lying if rng.u32(0..4) == 0 => {
                let own = self.past.last();
                if let Some(command) = if rng.bool() { foreign } else { own } {
                    let (acknowledge, succeeded) = (rng.bool(), rng.bool());
                    return Deed::Lie {
                        command: command.clone(),
                        acknowledge,
                        succeeded,
                    };
                }
            }
            Temper::Forgetful if !self.held.is_empty() && rng.u32(0..6) == 0 => {
                return Deed::Forget(rng.usize(0..self.held.len()));
            }
            Temper::Crashing if !self.held.is_empty() && rng.u32(0..12) == 0 => {
                return Deed::Complete {
                    held: rng.usize(0..self.held.len()),
                    succeeded: false,
                };
            }
            _ => {}
        }
        if self.held.is_empty() || rng.u32(0..8) == 0 {
            let polls = self.woken || self.polls_unasked && rng.u32(0..20) == 0;
            return if polls { Deed::Poll } else { Deed::Nothing };
        }
        let held = rng.usize(0..self.held.len());
        match rng.u32(0..10) {
            0 => Deed::Specify(held),
            _ if !self.held[held].acknowledged && rng.u32(0..8) > 0 => Deed::Acknowledge(held),
            _ => {
                let fails = self.temper == Temper::Failing && rng.u32(0..8) == 0;
                Deed::Complete {
                    held,
                    succeeded: !fails,
                }
            }
        }
    }
}
