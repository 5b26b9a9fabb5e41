//! An agent that is killed during a deployment reports every command once, runs no script twice,
//! and leaves the old or the new revision.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use codedeploy_tests::pair::{Found, HOOKS, Pair, Reference, Revision};
use codedeploy_tests::strike::{Report, Strike};
use codedeploy_tests::stub::Completion;
use codedeploy_tests::stub::lone::Lone;
use codedeploy_tests::sweep::{self, Tally, sweep};
use codedeploy_tests::wait;
use serde_json::json;

const GROUP: &str = "web";

/// The commands of the service, in order.
const COMMANDS: [&str; 6] = [
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
];

/// The time after which the service delivers a command again that has no outcome.
const REDELIVERY: Duration = Duration::from_secs(2);

/// A host with an agent, ready for the new revision.
struct Host {
    lone: Lone,
    pair: Pair,
    /// The number of deployments so far, which makes identifiers unique.
    deployments: usize,
}

/// A deployment during which the agent was killed, as the service saw it.
struct Deployed {
    id: String,
    /// The outcomes of its commands, in order; the last one failed unless all commands have one.
    outcomes: Vec<(&'static str, Completion)>,
}

impl Host {
    async fn prepared() -> (Self, Reference) {
        let lone = Lone::start("").await;
        let pair = Pair::create(&lone.path("pair"), GROUP);
        let configuration = fs::read_to_string(lone.path("agent.yml")).unwrap();
        let root = |path: &Path| format!("root_dir: {}\n", path.display());
        let configuration = configuration.replace(&root(&lone.path("root")), &root(&pair.root()));
        fs::write(lone.path("agent.yml"), configuration).unwrap();
        let mut host = Self {
            lone,
            pair,
            deployments: 0,
        };
        fs::create_dir_all(host.pair.root()).unwrap();
        host.kill().await;
        let pair = host.pair.clone();
        let reference = pair
            .prepare_with(async |revision| host.deploy(revision).await)
            .await;
        (host, reference)
    }

    /// Defines a deployment of a revision at the service.
    fn create(&mut self, revision: Revision) -> String {
        self.deployments += 1;
        let id = format!("d-{}", self.deployments);
        let specification = json!({
            "DeploymentId": id, "DeploymentGroupId": GROUP, "DeploymentGroupName": GROUP, "ApplicationName": "shop",
            "Revision": {"RevisionType": "Local File",
                "LocalRevision": {"Location": self.pair.bundle(revision), "BundleType": "tar"}}
        });
        self.lone.stub.specify(&id, &specification);
        id
    }

    /// Deploys without any disturbance.
    async fn deploy(&mut self, revision: Revision) {
        // The host's files are replaced while no agent runs.
        self.restart().await;
        let deployed = self.perform(revision).await;
        self.lone.agent.signal("TERM").await;
        wait::until("the agent ends", async || self.lone.agent.ended().ok_or(())).await;
        let (event, last) = deployed.outcomes.last().unwrap();
        assert_eq!(
            (*event, last.error_code),
            ("ApplicationStart", 0),
            "{last:?}"
        );
    }

    /// Performs a deployment; the agent is started again as soon as it ends.
    async fn perform(&mut self, revision: Revision) -> Deployed {
        let mut deployed = Deployed {
            id: self.create(revision),
            outcomes: Vec::new(),
        };
        for event in COMMANDS {
            let command = self.lone.command(&deployed.id, event);
            let mut delivered = Instant::now();
            let outcome = wait::until(&format!("an outcome of {command}"), async || {
                if self.lone.agent.ended().is_some() {
                    self.restart().await;
                    // A service redelivers unacknowledged commands.
                    self.lone.command(&deployed.id, event);
                    delivered = Instant::now();
                }
                // The last poll of the agent that was killed may have taken the command.
                if delivered.elapsed() > REDELIVERY {
                    self.lone.command(&deployed.id, event);
                    delivered = Instant::now();
                }
                let told = self.lone.stub.completions(&command);
                told.into_iter()
                    .next()
                    .ok_or_else(|| (self.lone.agent.output(), self.lone.log()))
            })
            .await;
            let failed = outcome.error_code != 0;
            deployed.outcomes.push((event, outcome));
            if failed {
                break;
            }
        }
        deployed
    }

    async fn kill(&mut self) {
        self.lone.agent.kill().await;
    }

    /// Ends the agent, and starts another.
    async fn restart(&mut self) {
        self.lone.kill_and_restart().await;
    }

    /// Records the result of one fault in `tally`.
    async fn struck(&mut self, reference: &Reference, strike: Strike, tally: &Tally) {
        self.pair.reset().await;
        let _ = fs::remove_file(self.pair.ran());
        let report = self.lone.path("report");
        let _ = fs::remove_file(&report);
        self.lone.stub.forget();
        self.lone.start_under(&strike, &report);
        let deployed = self.perform(Revision::New).await;
        let Some(call) = Report::read(&report).and_then(|report| report.struck) else {
            self.kill().await;
            return tally.missed();
        };
        tally.dealt(&call.name);
        let found = self.pair.found(reference);
        let told: Vec<String> = deployed
            .outcomes
            .iter()
            .map(|(event, told)| format!("{event} {}", told.error_code))
            .collect();
        let point = format!("{strike} {call} [{}]", told.join(", "));
        tally.found(&point, &found);
        let expect = |right: bool, what: String| {
            tally.expect(&point, if right { Ok(()) } else { Err(what) })
        };
        for (event, outcome) in &deployed.outcomes {
            let command = format!("{}/{event}", deployed.id);
            let told = self.lone.stub.completions(&command);
            let same = |other: &Completion| {
                (&other.status, other.error_code) == (&outcome.status, outcome.error_code)
            };
            expect(
                told.iter().all(same),
                format!("{event} has several outcomes: {told:?}"),
            );
            let install_or_download = ["DownloadBundle", "Install"].contains(event);
            expect(
                outcome.error_code == 0 || outcome.error_code == 7 && !install_or_download,
                format!("{outcome:?}"),
            );
        }
        let installed = deployed
            .outcomes
            .iter()
            .any(|(event, told)| *event == "Install" && told.error_code == 0);
        expect(
            installed == (found == Found::New),
            format!("Install is told to have succeeded: {installed}"),
        );
        let ran = fs::read_to_string(self.pair.ran()).unwrap_or_default();
        for event in HOOKS {
            let times = ran.lines().filter(|line| *line == event).count();
            let told = deployed
                .outcomes
                .iter()
                .find(|(of, _)| *of == event)
                .map(|(_, told)| told.error_code);
            expect(
                times <= 1,
                format!("the script of {event} ran {times} times"),
            );
            expect(
                told != Some(0) || times == 1,
                format!("{event} succeeded without its script"),
            );
            expect(
                told.is_some() || times == 0,
                format!("the script of {event} ran for no command"),
            );
        }
        tally.expect(&point, self.pair.leaves_nothing_behind());
        let again = self.perform(Revision::New).await;
        let end = again
            .outcomes
            .last()
            .map(|(event, told)| (*event, told.error_code));
        expect(
            end == Some(("ApplicationStart", 0)),
            format!("the next deployment fails: {:?}", again.outcomes.last()),
        );
        let differences = self.pair.state().differences(&reference.new);
        expect(
            differences.is_empty(),
            format!("the next deployment leaves something else:\n{differences}"),
        );
        self.kill().await;
    }
}

#[tokio::test]
async fn an_agent_that_is_killed_at_a_system_call_answers_once_and_leaves_the_old_or_the_new_revision()
 {
    let mut hosts =
        futures_util::future::join_all((0..sweep::AT_ONCE).map(|_| Host::prepared())).await;
    let (first, _) = &mut hosts[0];
    let report = first.lone.path("report");
    first.lone.start_under(&Strike::COUNT, &report);
    first.perform(Revision::New).await;
    first.lone.agent.signal("TERM").await;
    let counted = wait::until("the calls are counted", async || {
        Report::read(&report).ok_or(())
    })
    .await;
    let numbers = sweep::points(&counted, 1..=counted.calls.len(), 30);
    let tally = Tally::new("`codedeploy-agent` killed at a system call that changes files");
    sweep(
        hosts,
        sweep::kills(numbers),
        async |(host, reference): &mut (Host, Reference), strike| {
            host.struck(reference, strike, &tally).await;
        },
    )
    .await;
    tally.conclude();
}
