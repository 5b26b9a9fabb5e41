//! Values in words, for people. Text of others is made harmless for terminals.

use std::time::Duration;

use codedeploy_api::codedeploy::{
    DeploymentCreator, DeploymentOverview, DeploymentStatus, ErrorInformation, RevisionLocation,
    Timestamp,
};
use codedeploy_api::controller::{DeploymentSummary, GroupStatus};
use codedeploy_support::plain::{harmless, harmless_json};
use serde::Serialize;

/// The longest revision in a table, in characters.
const LONGEST: usize = 60;

/// A text of others on one line.
pub(crate) fn plain(text: &str) -> String {
    harmless(text.trim()).into_owned()
}

/// A document for programs.
pub(crate) fn json(value: &impl Serialize) -> String {
    let document = serde_json::to_string_pretty(value).unwrap_or_default();
    harmless_json(&document).into_owned()
}

/// A duration to its two largest units: `35s`, `12m`, `3h 20m`, `5d`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..36_000 => match seconds % 3600 / 60 {
            0 => format!("{}h", seconds / 3600),
            minutes => format!("{}h {minutes}m", seconds / 3600),
        },
        36_000..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The time since a moment: `3m ago`; `-` for none.
pub(crate) fn ago(time: Option<Timestamp>) -> String {
    time.map_or("-".into(), |time| {
        format!("{} ago", span(Timestamp::now().since(time)))
    })
}

/// The time until a moment: `in 3m`.
pub(crate) fn until(time: Timestamp) -> String {
    format!("in {}", span(time.since(Timestamp::now())))
}

/// A revision on one line: `s3://bucket/key?versionId=version`, as `deploy` takes it, or
/// `account/repository@commit`.
pub(crate) fn revision(location: Option<&RevisionLocation>) -> String {
    in_words(
        location,
        |version| format!("?versionId={version}"),
        str::to_owned,
    )
}

/// The same, short enough for a table: `s3://bucket/key#version` with the end of the version, as
/// versions of the same time have the same beginning. Of a long key, the end distinguishes it.
pub(crate) fn short_revision(location: Option<&RevisionLocation>) -> String {
    let whole = in_words(
        location,
        |version| {
            let length = version.chars().count();
            let end = version.chars().skip(length.saturating_sub(8));
            format!("#{}", end.collect::<String>())
        },
        |commit| commit.chars().take(10).collect(),
    );
    let length = whole.chars().count();
    if length <= LONGEST {
        return whole;
    }
    let end: String = whole.chars().skip(length - LONGEST + 1).collect();
    format!("…{end}")
}

fn in_words(
    location: Option<&RevisionLocation>,
    of_version: impl Fn(&str) -> String,
    of_commit: impl Fn(&str) -> String,
) -> String {
    let Some(location) = location else {
        return "-".into();
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    if let Some(s3) = &location.s3_location {
        let version = s3.version.as_deref().filter(|version| *version != "null");
        let version = version.map(of_version).unwrap_or_default();
        return plain(&format!(
            "s3://{}/{}{version}",
            text(&s3.bucket),
            text(&s3.key)
        ));
    }
    let github = location.git_hub_location.clone().unwrap_or_default();
    plain(&format!(
        "{}@{}",
        text(&github.repository),
        of_commit(&text(&github.commit_id))
    ))
}

/// The status of a deployment; a bad one stands out.
pub(crate) fn status(status: Option<&DeploymentStatus>) -> String {
    match status {
        Some(DeploymentStatus::Failed) => "FAILED".into(),
        Some(DeploymentStatus::Stopped) => "STOPPED".into(),
        Some(status) => plain(status.as_str()),
        None => "-".into(),
    }
}

/// The instances of a deployment by their status: `3 succeeded, 1 failed`.
pub(crate) fn overview(overview: Option<&DeploymentOverview>) -> String {
    let Some(counts) = overview else {
        return "not started".into();
    };
    let named = [
        (counts.succeeded, "succeeded"),
        (counts.failed, "failed"),
        (counts.in_progress, "in progress"),
        (counts.ready, "ready"),
        (counts.pending, "pending"),
        (counts.skipped, "skipped"),
    ];
    let named: Vec<String> = named
        .into_iter()
        .filter_map(|(count, name)| {
            let count = count.filter(|count| *count > 0)?;
            Some(format!("{count} {name}"))
        })
        .collect();
    if named.is_empty() {
        "no instance".into()
    } else {
        named.join(", ")
    }
}

/// The reason of a bad end: `HEALTH_CONSTRAINTS: …`.
pub(crate) fn error(error: &ErrorInformation) -> String {
    match (&error.code, &error.message) {
        (Some(code), Some(message)) => format!("{code}: {}", plain(message)),
        (None, Some(message)) => plain(message),
        (Some(code), None) => code.to_string(),
        (None, None) => "unknown".into(),
    }
}

/// The number of all instances of a deployment.
pub(crate) fn total(counts: &DeploymentOverview) -> i64 {
    let counts = [
        counts.succeeded,
        counts.failed,
        counts.in_progress,
        counts.ready,
        counts.pending,
        counts.skipped,
    ];
    counts.into_iter().flatten().sum()
}

/// The name in a user ARN or a session ARN: `alice`, `role/session`. Other text stays.
pub(crate) fn who(arn: &str) -> String {
    let resource = arn.starts_with("arn:").then(|| arn.splitn(6, ':').nth(5));
    let resource = resource.flatten().unwrap_or(arn);
    let name = ["user/", "assumed-role/"]
        .into_iter()
        .find_map(|kind| resource.strip_prefix(kind));
    plain(name.unwrap_or(resource))
}

/// The creator of a deployment.
pub(crate) fn creator(deployment: &DeploymentSummary) -> String {
    match (&deployment.created_by, &deployment.creator) {
        (Some(arn), _) => who(arn),
        (None, Some(DeploymentCreator::CodeDeployRollback)) => "rollback".into(),
        (None, _) => "-".into(),
    }
}

/// Returns the last failure of a group unless a later deployment succeeded.
pub(crate) fn fresh_failure(group: &GroupStatus) -> Option<&DeploymentSummary> {
    let failure = group.last_failure.as_ref()?;
    let current = group.current_deployment.as_ref();
    let is_fresh = current.is_none_or(|current| failure.create_time > current.create_time);
    is_fresh.then_some(failure)
}

/// A number and a noun.
pub(crate) fn number(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A text as one argument of a command in a shell.
pub(crate) fn argument(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", harmless(text).replace('\'', r"'\''"))
    }
}

/// The next steps of an operator, with numbers, as the end of a page.
pub(crate) fn steps(advice: &[String]) -> String {
    let steps = advice.iter().enumerate();
    let steps = steps.map(|(number, step)| format!("  {}. {}\n", number + 1, plain(step)));
    let steps: String = steps.collect();
    if steps.is_empty() {
        steps
    } else {
        format!("\nWhat to do\n{steps}")
    }
}

/// Lines, each with a mark in front.
pub(crate) fn quoted(text: &str, mark: &str) -> String {
    let lines = text
        .lines()
        .map(|line| format!("{mark}{}", harmless(line.trim_end())));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3599, "59m"),
            (3600, "1h"),
            (12_000, "3h 20m"),
            (90_000, "25h"),
            (172_800, "2d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn arguments_are_quoted_for_shells() {
        for (text, quoted) in [
            ("shop-1.2", "shop-1.2"),
            ("my shop", "'my shop'"),
            ("it's $(x)", r"'it'\''s $(x)'"),
            ("", "''"),
        ] {
            assert_eq!(argument(text), quoted);
        }
    }

    #[test]
    fn people_have_the_names_of_their_arns() {
        for (arn, name) in [
            ("arn:aws:iam::123456789012:user/alice", "alice"),
            ("arn:aws:iam::123456789012:user/local/root", "local/root"),
            (
                "arn:aws:sts::123456789012:assumed-role/ci/job-1",
                "ci/job-1",
            ),
            (
                "command line, login of uid 7",
                "command line, login of uid 7",
            ),
        ] {
            assert_eq!(who(arn), name);
        }
    }

    #[test]
    fn a_long_revision_keeps_its_end() {
        let location: RevisionLocation = serde_json::from_value(serde_json::json!({
            "revisionType": "S3",
            "s3Location": {"bucket": "b", "key": format!("{}/\u{1b}[2J.zip", "x".repeat(70)), "bundleType": "zip"},
        }))
        .unwrap();
        let short = short_revision(Some(&location));
        assert_eq!(short.chars().count(), LONGEST);
        assert!(
            short.starts_with('…') && short.ends_with(".zip") && !short.contains('\u{1b}'),
            "{short}"
        );
    }
}
