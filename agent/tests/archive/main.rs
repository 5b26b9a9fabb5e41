//! What unpacking a bundle does to the disk, and what it refuses.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod bundle;
mod damaged;
mod faithful;
mod flatten;
mod foreign;
mod hostile;
mod limits;
mod readers;
