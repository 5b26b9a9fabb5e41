//! An independent history of the groups: the revision of each host, the last success, the order of
//! hosts, rollbacks and deregistrations.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use codedeploy_controller::store::{Json, Tx};
use serde_json::Value;

use super::oracle::{self, Deployment, Target};

/// Whether the last deployment to a host succeeded, and its known revision.
type Health = (bool, Option<Value>);

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The last successful deployment of each group, and its revision.
    good: HashMap<String, (String, Value)>,
    /// By group and host.
    health: BTreeMap<(String, String), Health>,
    /// Deployments whose targets were checked.
    started: HashSet<String>,
    /// The rollback choice of the first StopDeployment; empty if its caller got no response.
    stops: HashMap<String, Option<Value>>,
    /// The time until which deployments wait to be continued.
    ready: HashMap<String, i64>,
    /// The time at which the original instances of a deployment are deregistered.
    retiring: HashMap<String, i64>,
    /// The registered instances.
    registered: BTreeSet<String>,
}

fn seconds(time: &Value) -> Option<i64> {
    time.as_f64()
        .map(|seconds| (seconds * 1000.0).round() as i64)
}

fn is_attempted(target: &Target) -> bool {
    target
        .events()
        .iter()
        .any(|event| !event["started"].is_null() || !event["diagnostics"].is_null())
}

fn had_traffic(target: &Target) -> bool {
    target
        .events()
        .iter()
        .any(|event| event["name"] == "AllowTraffic" && !event["started"].is_null())
}

fn is_blue(target: &Target) -> bool {
    target.label.as_deref() == Some("Blue")
}

fn differs<T: std::fmt::Debug + PartialEq>(what: &str, found: T, expected: T) -> Option<String> {
    (found != expected).then(|| format!("{what}: {found:?}, and not {expected:?}"))
}

/// The registered instances with all of these tags that are not drained.
fn members(tx: &Tx<'_>, tags: &[(&str, &str)]) -> BTreeSet<String> {
    let sql = "SELECT name, tags FROM instances WHERE deregistered IS NULL AND drained IS NULL";
    let rows = tx
        .query_all(sql, (), |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    rows.into_iter()
        .filter(|(_, has): &(String, String)| {
            let has: Vec<Value> = serde_json::from_str(has).unwrap();
            tags.iter().all(|(key, value)| {
                has.iter()
                    .any(|tag| tag["Key"] == *key && tag["Value"] == *value)
            })
        })
        .map(|(name, _)| name)
        .collect()
}

impl Ledger {
    pub(crate) fn note_stop(&mut self, id: &str, rollback: Option<Value>) {
        let asked = self
            .stops
            .entry(id.to_owned())
            .or_insert_with(|| rollback.clone());
        // The last choice about the rollback counts.
        if !matches!(rollback, Some(Value::Null)) {
            *asked = rollback;
        }
    }

    /// Records that the host is a new one of the same name.
    pub(crate) fn forget(&mut self, host: &str) {
        self.health.retain(|(_, name), _| name != host);
    }

    fn revision_of_group(&self, group: &str) -> Option<&Value> {
        self.good.get(group).map(|(_, revision)| revision)
    }

    fn has(&self, group: &str, host: &str, revision: &Value) -> bool {
        let health = self.health.get(&(group.to_owned(), host.to_owned()));
        health.is_some_and(|(healthy, last)| *healthy && last.as_ref() == Some(revision))
    }

    /// Checks a deployment whose targets have just become known: they must be the right ones, in
    /// the right order.
    pub(crate) fn look_at_start(
        &mut self,
        tx: &Tx<'_>,
        deployment: &Deployment,
        targets: &[Target],
        undone: Option<&[Target]>,
    ) -> Option<String> {
        if deployment.progress["started"].is_null() || !self.started.insert(deployment.id.clone()) {
            return None;
        }
        let names = |wanted: &dyn Fn(&&Target) -> bool| -> Vec<String> {
            targets
                .iter()
                .filter(wanted)
                .map(|target| target.name.clone())
                .collect()
        };
        let (blue, deployed) = (names(&|t| is_blue(t)), names(&|t| !is_blue(t)));
        if let Some(undone) = undone {
            let drained = oracle::drained(tx);
            let of = |wanted: &dyn Fn(&&Target) -> bool| -> Vec<String> {
                undone
                    .iter()
                    .filter(|target| !drained.contains(&target.name))
                    .filter(wanted)
                    .map(|target| target.name.clone())
                    .collect()
            };
            return differs("original instances", blue, of(&|t| is_blue(t))).or_else(|| {
                differs(
                    "replacements",
                    deployed,
                    of(&|t| !is_blue(t) && had_traffic(t)),
                )
            });
        }
        let snapshot = &deployment.snapshot;
        let own = members(tx, &[("env", "prod")]);
        let green = snapshot["targetInstances"]["tagFilters"][0]["Value"].as_str();
        let mut expected = match green {
            Some(fleet) => members(tx, &[("fleet", fleet)]),
            None => own.clone(),
        };
        if green.is_some() && !expected.is_empty() {
            let original = own.difference(&expected).cloned().collect::<Vec<_>>();
            if let Some(wrong) = differs("original instances", blue, original) {
                return Some(wrong);
            }
        }
        let group = &deployment.group;
        let outdated_only = snapshot["updateOutdatedInstancesOnly"] == true;
        let is_current = |name: &str| outdated_only && self.has(group, name, &snapshot["revision"]);
        let short = targets.iter().find(|target| {
            let deploys = target
                .events()
                .iter()
                .any(|event| event["name"] == "Install");
            !is_blue(target) && deploys == is_current(&target.name)
        });
        if let Some(target) = short {
            return Some(format!(
                "{} has {} events",
                target.name,
                target.events().len()
            ));
        }
        if green.is_none() {
            expected.retain(|name| !is_current(name));
        }
        let class = |name: &String| match self.health.get(&(group.clone(), name.clone())) {
            None | Some((false, _)) => 0,
            Some((true, None)) => 1,
            Some((true, revision)) if revision.as_ref() != self.revision_of_group(group) => 2,
            Some((true, _)) => 3,
        };
        let mut expected: Vec<_> = expected.into_iter().collect();
        expected.sort_by_key(|name| (class(name), name.clone()));
        differs("order of attempts", deployed, expected)
    }

    /// Checks a deployment that has just ended: its rollback, and its effect on the group.
    pub(crate) fn look_at_end(
        &mut self,
        deployment: &Deployment,
        targets: &[Target],
    ) -> Option<String> {
        let rollback = &deployment.relations["rollback"];
        let wanted = self.asks_for_rollback(deployment);
        let has_good = self.good.contains_key(&deployment.group);
        let can_be_undone = match deployment.strategy() {
            "BlueGreen" => targets.iter().any(had_traffic) && targets.iter().any(is_blue),
            _ => has_good && targets.iter().any(is_attempted),
        };
        let is_rollback = deployment.snapshot["creator"] == "codeDeployRollback";
        let undone = rollback["rollbackDeploymentId"].is_string();
        if !is_rollback && let Some(wanted) = wanted {
            if undone != (wanted && can_be_undone) {
                return Some(format!(
                    "asks for a rollback: {wanted}, can: {can_be_undone}, has: {undone}"
                ));
            }
            if wanted && rollback["rollbackMessage"].is_null() {
                return Some("nobody says why it is not rolled back".into());
            }
        }
        let revision = &deployment.snapshot["revision"];
        if deployment.strategy() != "BlueGreenRollback" {
            let good = self.revision_of_group(&deployment.group).cloned();
            for target in targets
                .iter()
                .filter(|target| is_attempted(target) && !is_blue(target))
            {
                let key = (deployment.group.clone(), target.name.clone());
                let before = self
                    .health
                    .get(&key)
                    .and_then(|(_, revision)| revision.clone());
                let now = match target.status.as_str() {
                    "Succeeded" => (true, Some(revision.clone())),
                    _ => (
                        false,
                        before.filter(|revision| Some(revision) != good.as_ref()),
                    ),
                };
                self.health.insert(key, now);
            }
        }
        if deployment.status == "Succeeded"
            && (deployment.strategy() != "BlueGreenRollback" || has_good)
        {
            self.good.insert(
                deployment.group.clone(),
                (deployment.id.clone(), revision.clone()),
            );
        }
        None
    }

    /// Whether the ending requires a rollback, as far as that is known.
    fn asks_for_rollback(&self, deployment: &Deployment) -> Option<bool> {
        let configured = &deployment.snapshot["autoRollbackConfiguration"];
        let events = configured["events"].as_array().cloned().unwrap_or_default();
        let on = |event: &str| configured["enabled"] == true && events.iter().any(|e| e == event);
        let ending = &deployment.progress["ending"];
        match ending["Stopped"]["code"].as_str() {
            None => Some(ending["Failed"].is_object() && on("DEPLOYMENT_FAILURE")),
            Some("ALARM_ACTIVE") => Some(on("DEPLOYMENT_STOP_ON_ALARM")),
            Some("TIMEOUT") => Some(false),
            Some(_) => match self.stops.get(&deployment.id)?.as_ref()? {
                Value::Bool(asked) => Some(*asked),
                _ => Some(on("DEPLOYMENT_STOP_ON_REQUEST")),
            },
        }
    }

    /// Checks deployments that wait for a time: nothing happens before it, and it is the right one.
    pub(crate) fn look_at_waits(&mut self, deployment: &Deployment, now: i64) -> Option<String> {
        let (id, progress) = (&deployment.id, &deployment.progress);
        if deployment.status == "Ready" {
            let until = seconds(&progress["until"])?;
            let expected = *self.ready.entry(id.clone()).or_insert(now + 5 * 60_000);
            return differs("end of the wait", until, expected);
        }
        if progress["ending"]["Stopped"]["code"] == "TIMEOUT" {
            let until = self.ready.get(id).copied();
            if until.is_none_or(|until| now < until) {
                return Some(format!("stopped at {now} for a wait until {until:?}"));
            }
        }
        None
    }

    /// Checks the instances of a deployment whose termination wait has just ended.
    pub(crate) fn look_at_retirement(
        &mut self,
        tx: &Tx<'_>,
        deployment: &Deployment,
        later: &[Deployment],
        now: i64,
    ) -> Option<String> {
        let id = &deployment.id;
        if let Some(at) = seconds(&deployment.progress["retire_at"]) {
            self.retiring.insert(id.clone(), at);
            return None;
        }
        let at = self.retiring.remove(id)?;
        if now < at {
            return Some(format!(
                "deregistered its original instances at {now}, before {at}"
            ));
        }
        let serves = |target: &&Target| match deployment_stage(target) {
            Some(stage) => stage != "Block",
            None => false,
        };
        let later: Vec<Target> = later
            .iter()
            .flat_map(|later| oracle::targets(tx, &later.id))
            .collect();
        let serving: HashSet<&str> = later
            .iter()
            .filter(serves)
            .map(|target| target.arn.as_str())
            .collect();
        let now_registered = registered(tx);
        for target in oracle::targets(tx, id)
            .iter()
            .filter(|target| is_blue(target))
        {
            let is_registered = now_registered.contains(&target.arn);
            let was_registered = self.registered.contains(&target.arn);
            if is_registered != (was_registered && serving.contains(target.arn.as_str())) {
                return Some(format!("{} is registered: {is_registered}", target.name));
            }
        }
        None
    }

    /// Checks the service's records of its groups.
    pub(crate) fn look_at_groups(
        &mut self,
        tx: &Tx<'_>,
        deployments: &[Deployment],
    ) -> Option<String> {
        self.registered = registered(tx);
        let mut found = BTreeMap::new();
        let sql = "SELECT group_id, target_id, healthy, revision FROM health";
        let rows = tx
            .query_all(sql, (), |row| {
                let revision: Option<Json<Value>> = row.get(3)?;
                Ok((
                    (row.get(0)?, row.get(1)?),
                    (row.get(2)?, revision.map(|json| json.0)),
                ))
            })
            .unwrap();
        found.extend(rows);
        if let Some(wrong) = differs("health", &found, &self.health) {
            return Some(wrong);
        }
        let sql = "SELECT id, last_successful, target_revision FROM deployment_groups";
        let groups: Vec<(String, Option<String>, Option<Json<Value>>)> = tx
            .query_all(sql, (), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap();
        for (group, good, target) in groups {
            let expected = self.good.get(&group).map(|(id, _)| id.clone());
            if let Some(wrong) = differs("last successful deployment", good, expected) {
                return Some(wrong);
            }
            let target = target.map(|json| json.0);
            let expected = deployments
                .iter()
                .rfind(|deployment| deployment.group == group)
                .and_then(|last| {
                    let is_rollback = last.snapshot["creator"] == "codeDeployRollback";
                    let attempted = Some(&last.snapshot["revision"]);
                    if is_rollback {
                        self.revision_of_group(&group)
                    } else {
                        attempted
                    }
                    .cloned()
                });
            if let Some(wrong) = differs("target revision", target, expected) {
                return Some(wrong);
            }
        }
        None
    }
}

/// The stage of a target's last event, which shows why it became a target.
fn deployment_stage(target: &Target) -> Option<&str> {
    target
        .events()
        .last()
        .and_then(|event| event["stage"].as_str())
}

fn registered(tx: &Tx<'_>) -> BTreeSet<String> {
    let sql = "SELECT arn FROM instances WHERE deregistered IS NULL";
    tx.query_all(sql, (), |row| row.get(0))
        .unwrap()
        .into_iter()
        .collect()
}
