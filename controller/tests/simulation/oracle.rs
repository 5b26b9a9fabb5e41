//! The invariants of the database after every step, checked independently with plain SQL and JSON.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use codedeploy_controller::store::Tx;
use serde_json::Value;

use super::ledger::Ledger;

/// Facts of earlier steps that must stay true.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The end of every event, by deployment, target and event.
    ended: HashMap<(String, usize, usize), (String, String)>,
    /// Ended deployments.
    over: HashMap<String, Arc<Value>>,
    /// Deployments that were asked to stop.
    stopping: HashSet<String>,
    /// The ARNs of hosts that were drained at any time.
    drained: HashSet<String>,
    /// Targets that were skipped before their deployment was stopped, as those on drained hosts
    /// are.
    left_out: HashSet<(String, usize)>,
    /// Deployments whose time was over.
    late: HashSet<String>,
    /// The number of events that had begun on a target when its host was first seen drained.
    begun: HashMap<(String, usize), usize>,
    /// The unavailable targets of each deployment at the last look.
    out: HashMap<String, HashSet<usize>>,
    /// Deployments that wait only for hosts and the controller.
    pub(crate) running: usize,
    /// Whether all hosts are good and nobody interferes: then everything that can succeed must
    /// succeed.
    pub(crate) calm: bool,
    pub(crate) ledger: Ledger,
}

pub(crate) struct Deployment {
    pub(crate) id: String,
    pub(crate) group: String,
    pub(crate) group_name: String,
    pub(crate) status: String,
    pub(crate) progress: Arc<Value>,
    pub(crate) rules: Arc<Value>,
    pub(crate) snapshot: Arc<Value>,
    pub(crate) relations: Arc<Value>,
}

pub(crate) struct Target {
    pub(crate) position: usize,
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) status: String,
    pub(crate) label: Option<String>,
    events: Arc<Value>,
}

impl Target {
    pub(crate) fn events(&self) -> &[Value] {
        self.events.as_array().unwrap()
    }
}

thread_local! {
    /// Most records were checked before.
    static READ: RefCell<HashMap<String, Arc<Value>>> = RefCell::default();
}

fn json(text: String) -> Arc<Value> {
    READ.with_borrow_mut(|read| {
        if read.len() > 2000 {
            read.clear();
        }
        let parse = |text: &String| Arc::new(serde_json::from_str(text).unwrap());
        Arc::clone(read.entry(text).or_insert_with_key(parse))
    })
}

pub(crate) const ACTIVE: [&str; 3] = ["Created", "InProgress", "Ready"];

pub(crate) fn deployments(tx: &Tx<'_>) -> Vec<Deployment> {
    let sql = "SELECT d.id, group_id, status, progress, rules, snapshot, relations, g.name
         FROM deployments d JOIN deployment_groups g ON g.id = d.group_id ORDER BY d.sequence";
    tx.query_all(sql, (), |row| {
        Ok(Deployment {
            id: row.get(0)?,
            group: row.get(1)?,
            status: row.get(2)?,
            progress: json(row.get(3)?),
            rules: json(row.get(4)?),
            snapshot: json(row.get(5)?),
            relations: json(row.get(6)?),
            group_name: row.get(7)?,
        })
    })
    .unwrap()
}

pub(crate) fn targets(tx: &Tx<'_>, id: &str) -> Vec<Target> {
    let sql = "SELECT position, status, label, events, target_id, arn FROM targets
               WHERE deployment_id = ?1 ORDER BY position";
    tx.query_all(sql, [id], |row| {
        Ok(Target {
            position: row.get(0)?,
            status: row.get(1)?,
            label: row.get(2)?,
            events: json(row.get(3)?),
            name: row.get(4)?,
            arn: row.get(5)?,
        })
    })
    .unwrap()
}

fn state(event: &Value) -> &str {
    event["state"].as_str().unwrap()
}

impl Deployment {
    /// The name of its strategy, without its contents.
    pub(crate) fn strategy(&self) -> &str {
        match &self.rules["course"] {
            Value::String(name) => name,
            _ => "BlueGreen",
        }
    }

    /// Whether its time is over, or that of its wait.
    fn is_late(&self, now: i64) -> bool {
        let limit = match self.strategy() {
            "BlueGreen" | "BlueGreenRollback" => 2_000_000,
            _ => 1_000_000,
        };
        let time = |name: &str| {
            let seconds = self.progress[name].as_f64();
            seconds.map(|seconds| (seconds * 1000.0).round() as i64)
        };
        time("started").is_some_and(|started| started + limit <= now)
            || time("until").is_some_and(|until| until <= now)
    }

    /// Whether the event failed and its target still continues.
    fn forgives(&self, event: &Value) -> bool {
        let name = event["name"].as_str().unwrap();
        let around_block = ["BeforeBlockTraffic", "AfterBlockTraffic"].contains(&name);
        let asked = self.rules["ignore_application_stop_failures"] == true;
        state(event) == "Failed"
            && (asked && (around_block || name == "ApplicationStop")
                || around_block && self.rules["course"] == "BlueGreenRollback")
    }
}

/// The time of the first host timeout.
pub(crate) fn first_deadline(tx: &Tx<'_>) -> Option<i64> {
    let sql = "SELECT min(deadline) FROM targets WHERE class IN ('offered', 'performing')";
    tx.query_one(sql, (), |row| row.get(0)).unwrap()
}

fn started(deployment: &Deployment) -> bool {
    !deployment.progress["started"].is_null()
}

fn is_out(event: &Value) -> bool {
    ["Queued", "Leased", "Acknowledged"].contains(&state(event))
}

/// The largest number of unavailable targets, computed from CodeDeploy's documentation.
fn budget(rules: &Value, targets: usize) -> usize {
    let minimum = match &rules["minimum_healthy"] {
        Value::String(name) if name == "OneAtATime" => targets.saturating_sub(1),
        Value::String(_) if targets == 1 => 0,
        Value::String(_) => targets - targets / 2,
        numbered if numbered["HostCount"].is_u64() => {
            numbered["HostCount"].as_u64().unwrap() as usize
        }
        numbered => (targets * numbered["FleetPercent"].as_u64().unwrap() as usize).div_ceil(100),
    };
    targets.saturating_sub(minimum)
}

/// The drained hosts.
pub(crate) fn drained(tx: &Tx<'_>) -> HashSet<String> {
    let sql = "SELECT name FROM instances WHERE deregistered IS NULL AND drained IS NOT NULL";
    let names = tx.query_all(sql, (), |row| row.get(0)).unwrap();
    names.into_iter().collect()
}

/// The ARNs of drained hosts: a host that was registered anew has another one.
fn drained_arns(tx: &Tx<'_>) -> HashSet<String> {
    let sql = "SELECT arn FROM instances WHERE drained IS NOT NULL";
    let arns = tx.query_all(sql, (), |row| row.get(0)).unwrap();
    arns.into_iter().collect()
}

/// Whether too few hosts are left for success; the minimum is one of the hosts that were not
/// drained, which are all of these or all but those that were skipped.
fn has_lost_too_many(deployment: &Deployment, targets: &[Target], skipped: usize) -> bool {
    let count = |fleet: Option<&str>, status: &str| {
        targets
            .iter()
            .filter(|target| target.label.as_deref() == fleet && target.status == status)
            .count()
    };
    let (fleet, other) = match deployment.strategy() {
        "BlueGreen" => (Some("Green"), Some("Blue")),
        "BlueGreenRollback" => (Some("Blue"), Some("Green")),
        _ => (None, Some("nobody")),
    };
    let size = targets
        .iter()
        .filter(|target| target.label.as_deref() == fleet)
        .count();
    let failed = count(fleet, "Failed");
    let too_many = (size.saturating_sub(skipped)..=size).any(|size| {
        let budget = budget(&deployment.rules, size);
        (failed > 0 && failed >= budget) || (skipped > 0 && budget == 0)
    });
    too_many || count(fleet, "Succeeded") == 0 || count(other, "Failed") > 0
}

impl Memory {
    /// Checks everything. Returns the first violation.
    pub(crate) fn look(&mut self, tx: &Tx<'_>, now: i64) -> Option<String> {
        let deployments = deployments(tx);
        let runs = |deployment: &&Deployment| {
            ["Created", "InProgress"].contains(&deployment.status.as_str())
        };
        self.running = deployments.iter().filter(runs).count();
        let mut active: BTreeMap<&str, &str> = BTreeMap::new();
        for (number, deployment) in deployments.iter().enumerate() {
            let id = &deployment.id;
            let is_active = ACTIVE.contains(&deployment.status.as_str());
            if is_active && let Some(other) = active.insert(&deployment.group, id) {
                return Some(format!("{id} and {other} are active in one group"));
            }
            let later = &deployments[number + 1..];
            if let Some(wrong) = self.look_at_one(tx, deployment, later, now) {
                return Some(format!("{id} ({}): {wrong}", deployment.status));
            }
        }
        rollbacks(&deployments).or_else(|| self.ledger.look_at_groups(tx, &deployments))
    }

    fn look_at_one(
        &mut self,
        tx: &Tx<'_>,
        deployment: &Deployment,
        later: &[Deployment],
        now: i64,
    ) -> Option<String> {
        let id = &deployment.id;
        let wrong = self.ledger.look_at_retirement(tx, deployment, later, now);
        if let Some(before) = self.over.get(id) {
            let changed = before["ending"] != deployment.progress["ending"];
            return wrong.or_else(|| changed.then(|| format!("ended twice, first so: {before}")));
        }
        let targets = targets(tx, id);
        if let Some(wrong) = self.look_at_drains(tx, deployment, &targets, now) {
            return Some(wrong);
        }
        let undone = match deployment.strategy() {
            "BlueGreenRollback" => {
                deployment.relations["rollback"]["rollbackTriggeringDeploymentId"].as_str()
            }
            _ => None,
        };
        let undone = undone.map(|id| self::targets(tx, id));
        let is_active = ACTIVE.contains(&deployment.status.as_str());
        let wrong = wrong
            .or_else(|| {
                self.ledger
                    .look_at_start(tx, deployment, &targets, undone.as_deref())
            })
            .or_else(|| self.ledger.look_at_waits(deployment, now))
            .or_else(|| self.look_at(deployment, &targets, is_active));
        if wrong.is_some() || is_active {
            return wrong;
        }
        self.over.insert(id.clone(), deployment.progress.clone());
        self.ledger.look_at_end(deployment, &targets)
    }

    /// Checks that nothing begins on a drained host, and that no other host is left out.
    fn look_at_drains(
        &mut self,
        tx: &Tx<'_>,
        deployment: &Deployment,
        targets: &[Target],
        now: i64,
    ) -> Option<String> {
        let drained = drained_arns(tx);
        self.drained.extend(drained.iter().cloned());
        // The clock can jump back.
        if deployment.is_late(now) {
            self.late.insert(deployment.id.clone());
        }
        let is_stopping = self.late.contains(&deployment.id)
            || !deployment.progress["stop"].is_null()
            || !ACTIVE.contains(&deployment.status.as_str());
        for target in targets {
            let key = (deployment.id.clone(), target.position);
            let begun = target
                .events()
                .iter()
                .filter(|event| !["Pending", "Skipped"].contains(&state(event)))
                .count();
            if drained.contains(&target.arn) {
                let before = *self.begun.entry(key.clone()).or_insert(begun);
                if begun > before {
                    return Some(format!("{} is drained and begins an event", target.name));
                }
            } else {
                self.begun.remove(&key);
            }
            if target.status == "Skipped" && !is_stopping {
                if !self.drained.contains(&target.arn) {
                    return Some(format!("{} is left out", target.name));
                }
                self.left_out.insert(key);
            }
        }
        None
    }

    fn look_at(
        &mut self,
        deployment: &Deployment,
        targets: &[Target],
        is_active: bool,
    ) -> Option<String> {
        for target in targets {
            if let Some(wrong) = self.look_at_target(deployment, target) {
                return Some(format!("target {}: {wrong}", target.position));
            }
        }
        let unavailable = |target: &&Target| {
            let deploys = target.label.as_deref() != Some("Blue");
            let begun = target
                .events()
                .iter()
                .any(|event| !["Pending", "Skipped"].contains(&state(event)));
            let mut installing = target
                .events()
                .iter()
                .filter(|event| event["stage"] == "Deploy");
            let done =
                installing.all(|event| state(event) == "Succeeded" || deployment.forgives(event));
            deploys && begun && !done
        };
        let in_place = ["InPlace", "InPlaceBehindLoadBalancer"].contains(&deployment.strategy());
        let serves = |target: &&Target| {
            let key = (deployment.id.clone(), target.position);
            !self.left_out.contains(&key)
        };
        let green = targets
            .iter()
            .filter(|target| target.label.as_deref() != Some("Blue"))
            .filter(serves)
            .count();
        let out: HashSet<usize> = targets
            .iter()
            .filter(serves)
            .filter(unavailable)
            .map(|target| target.position)
            .collect();
        // A drain can leave fewer hosts than were expected when these began.
        let before = self.out.insert(deployment.id.clone(), out.clone());
        let begins = !out.is_subset(&before.unwrap_or_default());
        let out = out.len();
        let deploying = deployment.progress["stage"] == "Deploy" || deployment.status == "Ready";
        if (in_place || deploying)
            && is_active
            && begins
            && green > 0
            && out > budget(&deployment.rules, green)
        {
            return Some(format!("{out} of {green} hosts unavailable"));
        }
        // Traffic is taken from one fleet only after the other has it.
        let events = |label: &str, wanted: &'static str| -> Vec<String> {
            let of_fleet = targets
                .iter()
                .filter(|target| target.label.as_deref() == Some(label));
            of_fleet
                .flat_map(|target| target.events())
                .filter(|event| event["name"] == wanted)
                .map(|event| state(event).to_owned())
                .collect()
        };
        for (gains, loses) in [("Green", "Blue"), ("Blue", "Green")] {
            let allowed = events(gains, "AllowTraffic");
            let blocking = events(loses, "BlockTraffic")
                .iter()
                .any(|s| s != "Pending" && s != "Skipped");
            let has_traffic = allowed.iter().any(|s| s == "Succeeded");
            if blocking && !allowed.is_empty() && !has_traffic {
                return Some(format!("{loses} loses its traffic and {gains} has none"));
            }
        }
        if is_active {
            return None;
        }
        self.look_at_end(deployment, targets)
    }

    fn look_at_target(&mut self, deployment: &Deployment, target: &Target) -> Option<String> {
        let mut earlier_open = false;
        let mut out = 0;
        for (index, event) in target.events().iter().enumerate() {
            let begun = !["Pending", "Skipped"].contains(&state(event));
            if begun && earlier_open {
                return Some(format!(
                    "event {index} before its turn: {:?}",
                    target.events()
                ));
            }
            earlier_open |= state(event) != "Succeeded" && !deployment.forgives(event);
            out += usize::from(is_out(event));
            if ["Succeeded", "Failed", "Skipped"].contains(&state(event)) {
                let now = (state(event).to_owned(), event["diagnostics"].to_string());
                let key = (deployment.id.clone(), target.position, index);
                let before = self.ended.entry(key).or_insert_with(|| now.clone());
                if *before != now {
                    return Some(format!("event {index} was {before:?} and is {now:?}"));
                }
            }
        }
        (out > 1).then(|| format!("{out} commands at once"))
    }

    fn look_at_end(&mut self, deployment: &Deployment, targets: &[Target]) -> Option<String> {
        let left = |event: &Value| is_out(event) || state(event) == "Pending";
        if let Some(target) = targets
            .iter()
            .find(|target| target.events().iter().any(left))
        {
            return Some(format!(
                "ended with something left on target {}",
                target.position
            ));
        }
        let is_left_out =
            |target: &&Target| target.status == "Skipped" && self.drained.contains(&target.arn);
        let all: Vec<_> = targets
            .iter()
            .filter(|target| target.label.as_deref() != Some("Blue"))
            .collect();
        let deployed: Vec<_> = all
            .iter()
            .copied()
            .filter(|target| !is_left_out(target))
            .collect();
        let skipped = targets.iter().filter(is_left_out).count();
        let count = |status: &str| {
            deployed
                .iter()
                .filter(|target| target.status == status)
                .count()
        };
        let reroutes = deployment.strategy() == "BlueGreenRollback";
        if deployment.status == "Succeeded" && !targets.is_empty() && !reroutes {
            if count("Succeeded") == 0 || count("Succeeded") + count("Failed") != deployed.len() {
                return Some("a success of a fleet that was not deployed to".into());
            }
            if count("Failed") > budget(&deployment.rules, deployed.len()) {
                return Some(format!("a success with {} failures", count("Failed")));
            }
            if targets
                .iter()
                .filter(|target| !is_left_out(target))
                .any(|t| t.label.as_deref() == Some("Blue") && t.status != "Succeeded")
            {
                return Some("a success with original instances that may have traffic".into());
            }
        }
        let code = &deployment.progress["ending"]["Failed"]["code"];
        if code == "HEALTH_CONSTRAINTS" && !has_lost_too_many(deployment, targets, skipped) {
            return Some("a failure of a fleet that is well enough".into());
        }
        let nobody_could_begin = !all.is_empty() && budget(&deployment.rules, all.len()) == 0;
        if !reroutes
            && (code == "HEALTH_CONSTRAINTS_INVALID") != nobody_could_begin
            && started(deployment)
        {
            return Some(format!("{code} of {} hosts", all.len()));
        }
        let excused = nobody_could_begin
            || skipped > 0
            || code == "NO_INSTANCES" && targets.is_empty()
            || deployment.progress["ending"]["Stopped"]["code"] == "TIMEOUT";
        if self.calm && deployment.status != "Succeeded" && !excused {
            return Some("good hosts, and nobody interfered".into());
        }
        if code == "HEALTH_CONSTRAINTS" && targets.iter().all(|target| target.status == "Succeeded")
        {
            return Some("a failure without a failed target".into());
        }
        None
    }

    /// Records that a deployment was asked to stop.
    pub(crate) fn note_stop(&mut self, id: &str) {
        self.stopping.insert(id.to_owned());
    }

    pub(crate) fn is_stopping(&self, id: &str) -> bool {
        self.stopping.contains(id)
    }
}

/// Each deployment is rolled back at most once, a rollback never, and both refer to each other.
fn rollbacks(deployments: &[Deployment]) -> Option<String> {
    let by_id: HashMap<_, _> = deployments.iter().map(|d| (d.id.as_str(), d)).collect();
    let mut undone: HashMap<&str, &str> = HashMap::new();
    for deployment in deployments {
        let is_rollback = deployment.snapshot["creator"] == "codeDeployRollback";
        let rollback = &deployment.relations["rollback"];
        let of = rollback["rollbackTriggeringDeploymentId"].as_str();
        let by = rollback["rollbackDeploymentId"].as_str();
        if is_rollback != of.is_some() {
            return Some(format!("{} is a rollback of nothing", deployment.id));
        }
        if is_rollback && by.is_some() {
            return Some(format!("the rollback {} was rolled back", deployment.id));
        }
        if let Some(of) = of {
            if let Some(other) = undone.insert(of, &deployment.id) {
                return Some(format!(
                    "{of} was rolled back by {other} and {}",
                    deployment.id
                ));
            }
            let answer = by_id
                .get(of)
                .map(|d| &d.relations["rollback"]["rollbackDeploymentId"]);
            if answer.and_then(|id| id.as_str()) != Some(deployment.id.as_str()) {
                return Some(format!("{of} does not know its rollback {}", deployment.id));
            }
        }
        if let Some(by) = by
            && !by_id.contains_key(by)
        {
            return Some(format!("{} was rolled back by nobody", deployment.id));
        }
    }
    None
}
