//! The messages on the wire, defined once for the agent, the controller and the tests.
//!
//! * [`lifecycle`]: the names of lifecycle events, which are also the commands that a host
//!   receives;
//! * [`codedeploy`]: the public API, `CodeDeploy_20141006`;
//! * [`controller`]: the controller's own API beside it, `CodeDeployController_20261201`;
//! * [`command`]: the agents' API, `CodeDeployCommandService_v20141006`;
//! * [`specification`]: the deployment specification, the signed document inside a command's
//!   envelope;
//! * [`diagnostics`]: a host's report about a finished command;
//! * [`trace`]: the place of its scripts in a distributed trace.
//!
//! Besides, [`chain`] shows an error with its causes, in the same form for all programs.
//!
//! Shapes only: the agent decides what a member means for a host, the controller what it means for
//! a fleet.

pub mod chain;
pub mod codedeploy;
pub mod command;
pub mod controller;
pub mod diagnostics;
pub mod lifecycle;
mod object;
mod operation;
pub mod specification;
pub mod trace;
