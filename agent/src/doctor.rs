//! doctor
use std::path::Path; use std::process::ExitCode; pub fn main(_:Option<&Path>,_:bool)->ExitCode{ExitCode::SUCCESS}
