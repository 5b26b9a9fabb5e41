//! The agents of a small fleet: their requests to the controller.

use codedeploy_api::command::{CommandStatus, Envelope};
use codedeploy_controller::deployment::commands::{self, Offer};
use codedeploy_controller::deployment::effects::Effects;
use codedeploy_controller::error::ApiError;
use codedeploy_controller::transaction::Context;

use super::{World, oracle};
use crate::host::{Deed, Held};

impl World {
    pub(super) fn live(&mut self, index: usize) {
        let foreign = (0..self.hosts.len())
            .find(|other| *other != index && !self.hosts[*other].held.is_empty());
        let foreign = foreign.map(|other| {
            self.hosts[other].held[0]
                .command
                .host_command_identifier
                .clone()
        });
        let deed = self.hosts[index].next(&mut self.rng, foreign.as_ref());
        let host = self.hosts[index].identifier.clone();
        match deed {
            Deed::Nothing => {}
            Deed::Poll => self.poll(index, host),
            Deed::Specify(held) => {
                let execution = self.hosts[index].held[held]
                    .command
                    .deployment_execution_id
                    .clone();
                let answer = self.transact(move |context| {
                    commands::specification(context, &host, &execution, true)
                });
                answer.unwrap();
            }
            Deed::Acknowledge(held) => self.acknowledge(index, host, held),
            Deed::Complete { held, succeeded } => {
                let held = self.hosts[index].held.swap_remove(held);
                self.say(format!(
                    "box{index} completes {}: {succeeded}",
                    held.command.command_name
                ));
                let id = held.command.host_command_identifier.clone();
                let done = self
                    .act(move |context| Ok(((), vec![complete(context, &host, &id, succeeded)?])));
                match done {
                    Some(done) => {
                        done.unwrap();
                        self.hosts[index]
                            .past
                            .push(held.command.host_command_identifier);
                    }
                    // It got no response, and retries.
                    None => self.hosts[index].held.push(held),
                }
            }
            Deed::Forget(held) => {
                let held = self.hosts[index].held.swap_remove(held);
                self.say(format!("box{index} forgets {}", held.command.command_name));
            }
            Deed::Lie {
                command,
                acknowledge,
                succeeded,
            } => {
                let own = self.given.get(&command) == Some(&host);
                self.say(format!("box{index} lies about {command}"));
                let done = self.act(move |context| {
                    let outcome = if acknowledge {
                        commands::acknowledge(context, &host, &command, None)?.1
                    } else {
                        complete(context, &host, &command, succeeded)?
                    };
                    Ok(((), vec![outcome]))
                });
                assert!(
                    done.is_none_or(|done| done.is_ok() == own),
                    "a host reached another's command"
                );
            }
        }
    }

    fn poll(&mut self, index: usize, host: String) {
        let polls = host.clone();
        let offer = self.act(move |context| {
            let (offer, outcome) = commands::lease(context, &polls)?;
            let command = match offer {
                Offer::Command(command) => Some(command),
                Offer::Nothing { .. } => None,
            };
            Ok((command, Vec::from_iter(outcome)))
        });
        let command = match offer {
            Some(offer) => offer.unwrap(),
            // It got no response, and retries.
            None => return,
        };
        let Some(command) = command else {
            self.hosts[index].woken = false;
            return;
        };
        let deployment = command
            .deployment_execution_id
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned();
        let name = self.name(&deployment);
        self.say(format!(
            "box{index} gets {} of {name}",
            command.command_name
        ));
        assert_eq!(command.host_identifier, host);
        let first = self
            .given
            .entry(command.host_command_identifier.clone())
            .or_insert_with(|| host.clone());
        assert_eq!(*first, host, "a command for two hosts");
        let drained = self
            .transact(|context| Ok(oracle::drained(context.tx)))
            .unwrap();
        let own_name = &self.hosts[index].name;
        assert!(!drained.contains(own_name), "a command for a drained host");
        assert!(
            !self.memory.is_stopping(&deployment),
            "a command after the stop"
        );
        assert!(!["BlockTraffic", "AllowTraffic"].contains(&command.command_name.as_str()));
        let held = &mut self.hosts[index].held;
        // An agent ignores a command that it already has.
        if held
            .iter()
            .all(|h| h.command.host_command_identifier != command.host_command_identifier)
        {
            held.push(Held {
                command,
                acknowledged: false,
            });
        }
    }

    fn acknowledge(&mut self, index: usize, host: String, held: usize) {
        let id = self.hosts[index].held[held]
            .command
            .host_command_identifier
            .clone();
        let envelope = Envelope {
            format: Envelope::JSON.into(),
            payload: r#"{"IsCommandNoop":false}"#.into(),
        };
        let status = self.act(move |context| {
            let (status, outcome) = commands::acknowledge(context, &host, &id, Some(&envelope))?;
            Ok((status, vec![outcome]))
        });
        match status {
            Some(Ok(CommandStatus::InProgress)) => self.hosts[index].held[held].acknowledged = true,
            Some(Ok(_)) => {
                self.hosts[index].held.swap_remove(held);
            }
            Some(Err(refusal)) => panic!("{refusal}"),
            None => {}
        }
    }
}

fn complete(
    context: &Context<'_>,
    host: &str,
    id: &str,
    succeeded: bool,
) -> Result<Effects, ApiError> {
    let code = if succeeded { 0 } else { 4 };
    let payload = format!(r#"{{"error_code":{code},"script_name":"s","message":"m","log":"l"}}"#);
    let envelope = Envelope {
        format: Envelope::JSON.into(),
        payload,
    };
    commands::complete(context, host, id, succeeded, Some(&envelope))
}
