//! One small fleet with its controller, its operator, its load balancers and its clock.

mod agents;
mod operator;

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use codedeploy_api::codedeploy::Timestamp;
use codedeploy_controller::config::known_names::KnownNames;
use codedeploy_controller::config::load_balancers::Balancers;
use codedeploy_controller::config::{Partition, Quotas};
use codedeploy_controller::deployment::alarm::{self, Sight};
use codedeploy_controller::deployment::decide;
use codedeploy_controller::deployment::effects::Effects;
use codedeploy_controller::deployment::resume::resume;
use codedeploy_controller::deployment::traffic::{self, Job, Work};
use codedeploy_controller::error::{ApiError, ErrorName};
use codedeploy_controller::keys::Keys;
use codedeploy_controller::pagination::Pages;
use codedeploy_controller::records::unfinished;
use codedeploy_controller::signals::agenda::Agenda;
use codedeploy_controller::store::Store;
use codedeploy_controller::transaction::Context;
use codedeploy_controller::vault::Vault;
use codedeploy_planner::Timers;
use fastrand::Rng;
use serde_json::json;

use super::host::{Host, Temper};
use super::oracle::{self, Memory};

const TIMERS: Timers = Timers {
    poll: Duration::from_secs(1),
    request: Duration::from_secs(30),
    lease: Duration::from_secs(10),
    pick_up: Duration::from_secs(50),
    run: Duration::from_secs(100),
    deployment: Duration::from_secs(1000),
    blue_green: Duration::from_secs(2000),
    traffic: Duration::from_secs(60),
    alarms: Duration::from_secs(10),
};

static SETTINGS: LazyLock<(Partition, Quotas, Balancers, Pages, Vault)> = LazyLock::new(|| {
    let balancers = json!({"lb": {"webhook": {"url": "http://[::1]/"}}});
    let partition = Partition::new(None, None).unwrap();
    let balancers = serde_json::from_value(balancers).unwrap();
    let vault = Vault::open(&Keys::of(
        tempfile::tempdir().unwrap().path(),
        &Store::in_memory().unwrap(),
    ))
    .unwrap();
    (
        partition,
        Quotas::default(),
        balancers,
        Pages::new(vault.page_key().unwrap()),
        vault,
    )
});

/// More steps than any fleet needs.
const MOST_STEPS: u32 = 30_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    InPlace,
    Traffic,
    BlueGreen,
}

pub(crate) struct World {
    store: Store,
    rng: Rng,
    now: i64,
    hosts: Vec<Host>,
    style: Style,
    groups: usize,
    /// All hosts are good, nobody interferes, and time stands still while anything is in progress:
    /// an action that the controller does not take at once, it has forgotten.
    calm: bool,
    /// The controller's memory, which a crash clears.
    agenda: Agenda,
    due: Vec<String>,
    traffic: bool,
    jobs: Vec<Job>,
    alarms: bool,
    /// The number of deployments that the operator has still to create.
    wanted: u32,
    memory: Memory,
    /// The host that each command was given to.
    given: HashMap<String, String>,
    /// Whether something may have changed since the last check.
    changed: bool,
    active: usize,
    names: HashMap<String, String>,
    trace: Vec<String>,
    tells: bool,
}

/// The end of a transaction in which the controller may crash.
enum Fate {
    Lives,
    DiesBefore,
    DiesAfter,
}

impl World {
    pub(crate) fn new(store: Store, seed: u64) -> World {
        let mut rng = Rng::with_seed(seed);
        let style = *rng
            .choice(&[
                Style::InPlace,
                Style::InPlace,
                Style::Traffic,
                Style::BlueGreen,
            ])
            .unwrap();
        let all_good = rng.u32(0..3) == 0;
        let calm = all_good && rng.bool();
        let hosts: Vec<_> = (0..rng.usize(1..7))
            .map(|number| {
                let name = format!("box{number}");
                let identifier = format!("arn:aws:iam::123456789012:user/{name}");
                let temper = if all_good {
                    Temper::Good
                } else {
                    Temper::draw(&mut rng)
                };
                Host::new(name, identifier, temper, !calm)
            })
            .collect();
        let (wanted, groups) = (rng.u32(1..5), rng.usize(1..3));
        let mut world = World {
            store,
            rng,
            now: 1_800_000_000_000,
            hosts,
            style,
            groups,
            calm,
            agenda: Agenda::default(),
            due: Vec::new(),
            traffic: false,
            jobs: Vec::new(),
            alarms: false,
            wanted,
            memory: Memory::default(),
            given: HashMap::new(),
            changed: true,
            active: 0,
            names: HashMap::new(),
            trace: Vec::new(),
            tells: false,
        };
        world.memory.calm = calm;
        world.set_up();
        world
    }

    /// Prints events as they happen.
    pub(crate) fn tell_all(&mut self) {
        self.tells = true;
    }

    pub(crate) fn trace(&self) -> &[String] {
        &self.trace
    }

    fn say(&mut self, what: String) {
        let line = format!(
            "{:>9.3} {what}",
            (self.now - 1_800_000_000_000) as f64 / 1000.0
        );
        if self.tells {
            println!("{line}");
        }
        self.trace.push(line);
    }

    fn name(&mut self, id: &str) -> String {
        let number = self.names.len() + 1;
        self.names
            .entry(id.to_owned())
            .or_insert_with(|| format!("d{number}"))
            .clone()
    }

    fn transact<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Context<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let now = Timestamp::from_millis(self.now);
        let (partition, quotas, balancers, pages, vault) = &*SETTINGS;
        self.store.transact_blocking(move |tx| {
            let known = &KnownNames::default();
            work(&Context {
                tx,
                now,
                partition,
                quotas,
                timers: &TIMERS,
                balancers,
                known,
                pages,
                vault,
                caller: None,
            })
        })
    }

    /// Runs a transaction of the controller, which may crash in it: before the commit, or before
    /// its effects are visible.
    fn act<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Context<'_>) -> Result<(T, Vec<Effects>), ApiError> + Send + 'static,
    ) -> Option<Result<T, ApiError>> {
        let fate = match self.rng.u32(0..300) {
            0 => Fate::DiesBefore,
            // A command whose response was lost is delivered again only after some time.
            1 if !self.calm => Fate::DiesAfter,
            _ => Fate::Lives,
        };
        let dies_before = matches!(fate, Fate::DiesBefore);
        let done = self.transact(move |context| {
            let done = work(context)?;
            if dies_before {
                Err(ErrorName::InternalFailure.because("the power failed"))
            } else {
                Ok(done)
            }
        });
        if !matches!(fate, Fate::Lives) {
            self.restart();
            return None;
        }
        Some(done.map(|(value, outcomes)| {
            for outcome in outcomes {
                self.hear(&outcome);
            }
            value
        }))
    }

    pub(super) fn hear(&mut self, outcome: &Effects) {
        self.changed = true;
        for host in &mut self.hosts {
            host.woken |= outcome.hosts.contains(&host.identifier);
        }
        self.traffic |= outcome.traffic;
        self.alarms |= outcome.alarms;
        self.agenda.hear(outcome);
    }

    fn restart(&mut self) {
        self.changed = true;
        self.say("the controller dies and starts again".into());
        self.agenda = Agenda::default();
        self.due.clear();
        self.jobs = self
            .transact(|context| traffic::begun(context, 0))
            .unwrap()
            .jobs;
        (self.traffic, self.alarms) = (true, true);
        for id in self
            .transact(|context| Ok(unfinished::all(context.tx)?))
            .unwrap()
        {
            let given = id.clone();
            self.transact(move |context| resume(context, &given, context.now))
                .unwrap();
            self.agenda.look_now(&id);
            let (_, outcome) = self
                .transact(move |context| resume(context, &id, context.now))
                .unwrap();
            self.hear(&outcome);
        }
        // The crash broke their connections.
        self.hosts.iter_mut().for_each(|host| host.woken = true);
    }

    /// Plays until every deployment has ended.
    pub(crate) fn play(&mut self) {
        for step in 0.. {
            assert!(step < MOST_STEPS, "the deployments never end");
            self.step();
            if std::mem::take(&mut self.changed) {
                self.look();
            }
            if self.active == 0 && self.wanted == 0 {
                return;
            }
            // Only the controller's own memory may end a deployment of silent hosts.
            let remembered = !self.due.is_empty() || self.agenda.idle(self.time()).is_some();
            let idle = !remembered && !self.traffic && !self.alarms && self.jobs.is_empty();
            assert!(
                self.active == 0 || !idle,
                "a deployment nobody will look at"
            );
            assert!(
                !self.calm || self.memory.running == 0 || !self.nothing_follows(),
                "a deployment that hangs"
            );
        }
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    /// Whether nothing happens until time passes.
    fn nothing_follows(&self) -> bool {
        self.due.is_empty()
            && self.agenda.idle(self.time()) != Some(Duration::ZERO)
            && !self.traffic
            && !self.alarms
            && self.jobs.is_empty()
            && self
                .hosts
                .iter()
                .all(|host| !host.woken && host.held.is_empty())
    }

    fn look(&mut self) {
        let mut memory = std::mem::take(&mut self.memory);
        let now = self.now;
        let (wrong, memory, active, deadline) = self
            .transact(move |context| {
                let wrong = memory.look(context.tx, now);
                let deadline = oracle::first_deadline(context.tx);
                Ok((wrong, memory, unfinished::all(context.tx)?.len(), deadline))
            })
            .unwrap();
        (self.memory, self.active) = (memory, active);
        if let Some(deadline) = deadline.map(Timestamp::from_millis)
            && self.due.is_empty()
        {
            let idle = self.agenda.idle(self.time());
            assert!(
                idle.is_some_and(|idle| idle <= deadline.since(self.time())),
                "a deadline that passes unseen"
            );
        }
        if let Some(wrong) = wrong {
            self.say(format!("WRONG: {wrong}"));
            panic!("{wrong}");
        }
    }

    fn step(&mut self) {
        for id in self.agenda.due(self.time()) {
            if !self.due.contains(&id) {
                self.due.push(id);
            }
        }
        match self.rng.u32(0..100) {
            0..=29 if !self.due.is_empty() => self.decide(),
            30..=36 if self.traffic || !self.jobs.is_empty() => self.balance(),
            37..=39 if self.alarms || !self.calm => self.watch(),
            40 => self.operate(),
            41..=50 => self.pass_time(),
            51 if self.rng.u32(0..30) == 0 => {
                // It may have been down for a while.
                if !self.calm && self.rng.bool() {
                    self.now += self.rng.i64(0..600_000);
                }
                self.restart();
            }
            _ => {
                let host = self.rng.usize(0..self.hosts.len());
                self.live(host);
            }
        }
    }

    fn pass_time(&mut self) {
        self.now += match self.rng.u32(0..60) {
            _ if self.calm && self.memory.running > 0 => 0,
            0 if !self.calm => {
                let jump = self.rng.i64(-60_000..200_000);
                self.say(format!("the clock jumps {jump} ms"));
                jump
            }
            0..=9 => self.rng.i64(0..40_000),
            _ => self.rng.i64(0..3000),
        };
    }

    fn decide(&mut self) {
        let id = self.due.remove(self.rng.usize(0..self.due.len()));
        let name = self.name(&id);
        let decided = self.act(move |context| {
            let outcome = decide::decide(context, &id)?;
            let changes = format!("{:?}", outcome.changes());
            Ok((changes, vec![outcome]))
        });
        if let Some(decided) = decided {
            let changes = decided.unwrap();
            self.say(format!("decides about {name}: {changes}"));
        }
    }

    fn balance(&mut self) {
        if self.traffic {
            self.traffic = false;
            let take = |context: &Context<'_>| {
                traffic::take(context, 0).map(|taken| (taken.jobs, taken.effects))
            };
            if let Some(taken) = self.act(take) {
                self.jobs.extend(taken.unwrap());
            }
            return;
        }
        let job = self.jobs.swap_remove(self.rng.usize(0..self.jobs.len()));
        let Work::Event { command, .. } = job.work else {
            panic!("a job of no deployment");
        };
        let fails = !self.calm && self.rng.u32(0..30) == 0;
        self.say(format!(
            "{:?} of {} {}",
            job.direction,
            job.instance,
            if fails { "fails" } else { "is done" }
        ));
        let result = if fails {
            Err("no route to host".into())
        } else {
            Ok(String::new())
        };
        if let Some(done) =
            self.act(move |context| Ok(((), vec![traffic::complete(context, &command, result)?])))
        {
            done.unwrap();
        }
    }

    fn watch(&mut self) {
        self.alarms = false;
        let monitored = self.transact(alarm::monitored).unwrap();
        for monitored in monitored {
            let active = !self.calm && self.rng.u32(0..25) == 0;
            let name = self.name(&monitored.deployment_id);
            self.say(format!(
                "the alarm of {name} is {}",
                if active { "active" } else { "quiet" }
            ));
            let id = monitored.deployment_id.clone();
            let sight = if active {
                Sight::Active("too-hot".into())
            } else {
                Sight::Quiet
            };
            let reported =
                self.act(move |context| Ok(((), vec![alarm::report(context, &id, sight)?])));
            if let Some(reported) = reported {
                reported.unwrap();
                if active {
                    self.memory.note_stop(&monitored.deployment_id);
                }
            }
        }
    }
}
