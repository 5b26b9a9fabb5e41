//! The version of the programs, and the source that they were built from.

use std::sync::LazyLock;

/// Returns the version for `--version`: `0.1.0 (commit 1b303a1, build 42, x86_64)`.
///
/// Commit and build are those of the variables `CODEDEPLOY_COMMIT` and `CODEDEPLOY_BUILD` when the
/// program was compiled. A release sets them. Reading them from git instead would link all programs
/// again after each commit, and would fail in an unpacked source archive.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        described(
            option_env!("CODEDEPLOY_COMMIT"),
            option_env!("CODEDEPLOY_BUILD"),
        )
    });
    &VERSION
}

fn described(commit: Option<&str>, build: Option<&str>) -> String {
    let commit = commit.filter(|commit| !commit.is_empty());
    let build = build.filter(|build| !build.is_empty());
    let source = match (commit, build) {
        (None, _) => "development build".to_owned(),
        (Some(commit), None) => format!("commit {commit}"),
        (Some(commit), Some(build)) => format!("commit {commit}, build {build}"),
    };
    let (version, architecture) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    format!("{version} ({source}, {architecture})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_names_its_commit_and_its_build() {
        let of = |commit, build| {
            let described = described(commit, build);
            let rest = described
                .strip_prefix(concat!(env!("CARGO_PKG_VERSION"), " ("))
                .unwrap();
            rest.rsplit_once(", ").unwrap().0.to_owned()
        };
        assert_eq!(of(None, None), "development build");
        assert_eq!(of(Some(""), Some("")), "development build");
        assert_eq!(of(Some("1b303a1"), None), "commit 1b303a1");
        assert_eq!(of(Some("1b303a1"), Some("42")), "commit 1b303a1, build 42");
    }
}
