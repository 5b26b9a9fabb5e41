//! The version that the agent reports to the service: that of the installed package, else its own.

use std::io;
use std::path::Path;
use std::sync::LazyLock;

use crate::bounded_read;

/// Written by packages: `agent_version: X`.
const FILE: &str = "/opt/codedeploy-agent/.version";

/// The version of this program.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// The value of the header `x-amz-codedeploy-agent-version`.
pub fn reported() -> &'static str {
    static REPORTED: LazyLock<String> = LazyLock::new(|| of_package(Path::new(FILE)));
    &REPORTED
}

fn of_package(path: &Path) -> String {
    match bounded_read::read(path) {
        Ok(text) => match parse(&text) {
            Some(version) => return version.to_owned(),
            None => tracing::warn!(
                "{} has no line `agent_version: X`; the service is told version {OWN} instead",
                path.display()
            ),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(
            %error,
            "cannot read {}; the service is told version {OWN} instead",
            path.display()
        ),
    }
    OWN.to_owned()
}

/// Returns the version in a text, if it can stand in a header.
fn parse(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?;
    let version = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("agent_version:"))?
        .trim();
    let usual = |c: char| c.is_ascii_alphanumeric() || "._+-~:".contains(c);
    (!version.is_empty() && version.len() <= 64 && version.chars().all(usual)).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_package_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".version");
        for (text, expected) in [
            (
                "agent_version: OFFICIAL_1.8.1-12_deb\n",
                "OFFICIAL_1.8.1-12_deb",
            ),
            ("# comment\r\nagent_version:2.1.0\r\n", "2.1.0"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(of_package(&path), expected);
        }
    }

    #[test]
    fn what_is_no_version_is_replaced_by_the_agents_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".version");
        assert_eq!(of_package(&path), OWN, "missing");
        let noise = vec![0xfe; 10_000_000];
        let long = format!("agent_version: {}", "1".repeat(65));
        let texts: [&[u8]; 7] = [
            b"",
            b"agent_version:",
            b"agent_ver",
            b"agent_version: a b",
            b"agent_version: a\0b",
            &noise,
            long.as_bytes(),
        ];
        for text in texts {
            std::fs::write(&path, text).unwrap();
            assert_eq!(of_package(&path), OWN);
        }
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(of_package(&path), OWN, "a FIFO nobody writes to");
        assert_eq!(of_package(folder.path()), OWN, "a directory");
    }
}
