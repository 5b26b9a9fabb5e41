//! What crosses the wire, written once for the agent, the controller and the tests.
//!
//! * [`lifecycle`]: the names of lifecycle events, which are also the commands a host is given;
//! * [`codedeploy`]: the public API, `CodeDeploy_20141006`;
//! * [`command`]: the agents' API, `CodeDeployCommandService_v20141006`;
//! * [`specification`]: the deployment specification, the signed document inside a command's envelope;
//! * [`diagnostics`]: what a host reports about a finished command.
//!
//! Shapes only: what a member means for a host is decided in the agent, for a fleet in the controller.

pub mod codedeploy;
pub mod command;
pub mod diagnostics;
pub mod lifecycle;
mod object;
pub mod specification;
