//! `strategy.traffic`: who sends requests to the slot that serves.

use super::super::ArchivePath;
use super::super::fields::{Place, Report, quoted};
use super::super::values::archive_path;

/// The keys below `traffic`.
const KNOWN: [&str; 1] = ["command"];

/// The provider that moves traffic from one slot to the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Traffic {
    /// The link alone decides.
    #[default]
    None,
    /// A script of the revision moves it.
    Command { location: ArchivePath },
}

/// Reads the value of `traffic`.
pub(super) fn traffic(place: &Place<'_>, report: &mut Report) -> Option<Traffic> {
    let expected = "none, or a provider such as \"command: scripts/traffic.sh\"";
    if let Some((text, _)) = place.scalar() {
        if text.trim() == "none" {
            return Some(Traffic::None);
        }
        place.problem(
            report,
            format_args!("found {}; expected {expected}", quoted(text)),
        );
        return None;
    }
    let fields = place.fields(report, &KNOWN, super::ONCE, expected)?;
    let place = fields.require(report, "command", "a script of the revision")?;
    let text = place.text(report, "a script of the revision")?;
    let location = archive_path(place, report, text)?;
    Some(Traffic::Command { location })
}
