//! The answers to operators' questions: the fleet, a host, a deployment. Each is a bounded number
//! of statements that find their rows in indexes, however many hosts and finished deployments there
//! are.

mod advice;
pub mod deployments;
pub mod groups;
pub mod hosts;
mod summary;
