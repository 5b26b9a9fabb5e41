//! Blue/green on one host.

pub mod traffic;
