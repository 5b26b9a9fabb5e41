//! `drain` and `undrain`: a host out of traffic and of deployments, and back.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use codedeploy_api::controller::{
    DrainHostInput, DrainHostOutput, DrainTraffic, GetHostStatusInput, GetHostStatusOutput,
    HostStatus, UndrainHostInput, UndrainHostOutput,
};

use super::connect::Session;
use super::{OperateError, Patience, UNFINISHED, hosts, report, update_agents, words};
use crate::cli::output;

/// The interval of looks at a host that is being drained.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn drain(
    session: &mut Session,
    name: String,
    reason: Option<String>,
    waiting: Option<&Patience>,
    json: bool,
) -> Result<ExitCode, OperateError> {
    let input = DrainHostInput {
        instance_name: Some(name.clone()),
        reason,
    };
    let output: DrainHostOutput = session.client()?.controller("DrainHost", &input).await?;
    let mut host = output.host.unwrap_or_default();
    let until = waiting.and_then(|patience| Some(Instant::now() + patience.timeout?));
    while waiting.is_some() && !is_idle(&host) {
        if until.is_some_and(|until| until <= Instant::now()) {
            output::complain(progress(&name, &host));
            return Ok(ExitCode::from(UNFINISHED));
        }
        tokio::time::sleep(LOOK).await;
        let input = GetHostStatusInput {
            instance_name: Some(name.clone()),
        };
        let client = session.client()?;
        let found: GetHostStatusOutput = client.controller("GetHostStatus", &input).await?;
        host = found.host.unwrap_or_default();
    }
    report(json, &host, &progress(&name, &host))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a drained host gets no traffic and performs no command.
fn is_idle(host: &HostStatus) -> bool {
    let drain = host.drain.clone().unwrap_or_default();
    drain.traffic != Some(DrainTraffic::Blocking)
        && host.commands.iter().flatten().next().is_none()
        && host.agent_update.is_none()
}

fn progress(name: &str, host: &HostStatus) -> String {
    let drain = host.drain.clone().unwrap_or_default();
    let name = words::plain(name);
    let mut progress = format!("{name} is drained; {}", hosts::traffic(&drain));
    for command in host.commands.iter().flatten() {
        progress += &format!("\n{name} {}", hosts::brief(command));
    }
    if let Some(update) = &host.agent_update {
        progress += &format!("\n{name} {}", update_agents::brief(update));
    }
    progress
}

pub(super) async fn undrain(
    session: &mut Session,
    name: String,
    json: bool,
) -> Result<(), OperateError> {
    let input = UndrainHostInput {
        instance_name: Some(name.clone()),
    };
    let output: UndrainHostOutput = session.client()?.controller("UndrainHost", &input).await?;
    let mut shown = format!("{} is not drained", words::plain(&name));
    for advice in output.advice.iter().flatten() {
        shown += &format!("\n{}", words::plain(advice));
    }
    Ok(report(json, &output, &shown)?)
}
