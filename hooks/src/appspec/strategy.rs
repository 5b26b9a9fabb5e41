//! The `strategy` section: blue/green on one host. AWS's agents ignore it, and deploy the same
//! revision in place.

pub mod traffic;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fields::{Fields, Place, Repeated, Report, quoted};
use super::raw::Value;
use super::scalar::{self, Number};
use super::values::{note_parents, wrong_path};
use super::{AppSpec, FileMapping, Finding, HostPath};
use crate::slots::{Side, SlotName};
pub use traffic::Traffic;

/// The keys of the section.
const KNOWN: [&str; 8] = [
    "type", "link", "slots", "keep", "ports", "drain", "units", "traffic",
];

/// A key that is written twice.
const ONCE: Repeated = Repeated::LastCounts("write it once");

/// The time for which requests may finish on the old slot, if the file sets none.
const DEFAULT_DRAIN: Duration = Duration::from_secs(10);

/// The longest such time.
const MAX_DRAIN: Duration = Duration::from_secs(3600);

/// The number of units that a slot can have.
const MAX_UNITS: usize = 16;

/// Blue/green with two slots on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strategy {
    /// The symbolic link that names the slot that serves.
    pub link: HostPath,
    /// The folder with the slots' folders, `blue` and `green`.
    pub slots: HostPath,
    pub keep: Keep,
    /// Absent if slots do not differ in a port.
    pub ports: Option<Ports>,
    /// The time for which requests may finish on the old slot.
    pub drain: Duration,
    /// Templates of systemd, such as `shop@.service`, whose instances are the slots' names.
    pub units: Vec<UnitTemplate>,
    pub traffic: Traffic,
}

/// The number of slots that keep their files after a switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    /// The old slot is emptied when its revision has stopped.
    Serving,
    /// The old slot is kept, so that a rollback is the switch back.
    #[default]
    Both,
}

/// The ports of both slots; they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    blue: u16,
    green: u16,
}

/// The name of a template unit of systemd, `NAME@.service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitTemplate {
    prefix: String,
}

impl Strategy {
    /// The folder of a slot.
    pub fn folder(&self, slot: SlotName) -> PathBuf {
        self.slots.as_path().join(slot.name())
    }

    pub fn side(&self, slot: SlotName) -> Side {
        Side {
            name: slot,
            folder: self.folder(slot),
            port: self.ports.map(|ports| ports.of(slot)),
        }
    }

    /// Whether files for `path` belong to the slot.
    pub fn covers(&self, path: &Path) -> bool {
        path.starts_with(self.link.as_path())
    }
}

impl Ports {
    pub fn of(self, slot: SlotName) -> u16 {
        match slot {
            SlotName::Blue => self.blue,
            SlotName::Green => self.green,
        }
    }
}

impl UnitTemplate {
    /// Reads the name of a template.
    pub fn new(name: &str) -> Option<Self> {
        let prefix = name.strip_suffix("@.service")?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        let fits = !prefix.is_empty() && prefix.len() <= 200 && !prefix.starts_with(['-', '.']);
        (fits && prefix.chars().all(allowed)).then(|| Self {
            prefix: prefix.to_owned(),
        })
    }

    /// The unit of a slot.
    pub fn of(&self, slot: SlotName) -> String {
        format!("{}@{slot}.service", self.prefix)
    }
}

impl AppSpec {
    /// Returns the same AppSpec with everything below `link` moved to `folder`.
    pub fn in_slot(&self, strategy: &Strategy, folder: &Path) -> Self {
        let moved = |path: &HostPath| path.moved(strategy.link.as_path(), folder);
        let mut appspec = self.clone();
        for mapping in &mut appspec.files {
            mapping.destination = moved(&mapping.destination);
        }
        for permission in &mut appspec.permissions {
            permission.object = moved(&permission.object);
        }
        appspec
    }
}

/// Reads the section. `files` are the destinations that must fit to it.
pub(super) fn strategy(
    top: &Fields<'_>,
    files: &[FileMapping],
    report: &mut Report,
) -> Option<Strategy> {
    let place = top.get("strategy")?;
    let expected =
        "a mapping, such as \"type: blue_green\" with \"link: /srv/app\" in the next line";
    let fields = place.fields(report, &KNOWN, ONCE, expected)?;
    let kind = fields
        .require(report, "type", "blue_green, the only type there is")
        .and_then(|place| kind(place, report));
    let link = fields
        .require(
            report,
            "link",
            "the path that users of the files know, such as /srv/app",
        )
        .and_then(|place| folder(place, report, "the path of a link, such as /srv/app"));
    let slots = match fields.get("slots") {
        Some(place) => folder(
            place,
            report,
            "a folder on the host, such as /srv/app.slots",
        ),
        None => link.as_ref().and_then(beside),
    };
    if let (Some(link), Some(slots)) = (&link, &slots) {
        let place = fields.get("slots").or(fields.get("link"));
        place
            .into_iter()
            .for_each(|place| apart(place, link, slots, report));
    }
    let keep = value(&fields, "keep", Keep::default(), |place| {
        keep(place, report)
    });
    let ports = value(&fields, "ports", None, |place| {
        ports(place, report).map(Some)
    });
    let drain = value(&fields, "drain", DEFAULT_DRAIN, |place| {
        drain(place, report)
    });
    let units = fields
        .get("units")
        .map(|place| units(place, report))
        .unwrap_or_default();
    let traffic = value(&fields, "traffic", Traffic::default(), |place| {
        traffic::traffic(place, report)
    });
    if let Some(traffic) = &traffic
        && traffic.needs_ports()
        && fields.get("ports").is_none()
    {
        place.problem(
            report,
            format_args!(
                "{} sends requests to ports; add the slots' ports, such as \"ports: [8001, 8002]\"",
                traffic.provider()
            ),
        );
    }
    kind?;
    let strategy = Strategy {
        link: link?,
        slots: slots?,
        keep: keep?,
        ports: ports?,
        drain: drain?,
        units,
        traffic: traffic?,
    };
    place_files(place, &strategy, files, report);
    report.notes.push(note(place, &strategy));
    Some(strategy)
}

/// The value of a key that may be absent; `None` if it is wrong.
fn value<T>(
    fields: &Fields<'_>,
    name: &str,
    default: T,
    read: impl FnOnce(&Place<'_>) -> Option<T>,
) -> Option<T> {
    fields.get(name).map_or(Some(default), read)
}

fn kind(place: &Place<'_>, report: &mut Report) -> Option<()> {
    match place.scalar() {
        Some((text, _)) if text.trim() == "blue_green" => Some(()),
        _ => {
            place.unexpected(report, "blue_green, the only type there is");
            None
        }
    }
}

/// An absolute path that is neither the root nor a folder of the kernel.
fn folder(place: &Place<'_>, report: &mut Report, expected: &str) -> Option<HostPath> {
    let text = place.text(report, expected)?;
    let path = match HostPath::new(text) {
        Ok(path) => path,
        Err(wrong) => {
            wrong_path(place, report, text, wrong);
            return None;
        }
    };
    note_parents(place, report, text);
    if let Some(kernel) = path.kernel_folder() {
        place.problem(
            report,
            format_args!(
                "found {}, which is in {kernel}, where the kernel makes the files; choose another path",
                quoted(text)
            ),
        );
        return None;
    }
    if path.as_path().file_name().is_none() {
        place.unexpected(report, expected);
        return None;
    }
    Some(path)
}

/// The default of `slots`: the link's name with `.slots`.
fn beside(link: &HostPath) -> Option<HostPath> {
    let mut path = link.as_path().as_os_str().to_owned();
    path.push(".slots");
    HostPath::new(path.to_str()?).ok()
}

fn apart(place: &Place<'_>, link: &HostPath, slots: &HostPath, report: &mut Report) {
    let (link, slots) = (link.as_path(), slots.as_path());
    if link.starts_with(slots) || slots.starts_with(link) {
        place.problem(
            report,
            format_args!(
                "the slots {} and the link {} lie in each other; choose a folder beside the link, such as {}.slots",
                quoted(&slots.to_string_lossy()),
                quoted(&link.to_string_lossy()),
                link.display()
            ),
        );
    }
}

fn keep(place: &Place<'_>, report: &mut Report) -> Option<Keep> {
    match whole(place) {
        Some(1) => Some(Keep::Serving),
        Some(2) => Some(Keep::Both),
        _ => {
            place.unexpected(
                report,
                "2, so that a rollback is the switch back, or 1, so that the old slot is emptied",
            );
            None
        }
    }
}

fn ports(place: &Place<'_>, report: &mut Report) -> Option<Ports> {
    let expected = "two different ports, such as [8001, 8002]";
    let Value::Sequence(_) = &place.node.value else {
        place.unexpected(report, expected);
        return None;
    };
    let items = place.items(report, expected);
    let mut read = Vec::new();
    for item in &items {
        match whole(item).and_then(|port| u16::try_from(port).ok()) {
            Some(port) if port > 0 => read.push(port),
            _ => {
                item.unexpected(report, "a port from 1 to 65535");
                return None;
            }
        }
    }
    match read[..] {
        [blue, green] if blue != green => Some(Ports { blue, green }),
        [_, _] => {
            place.problem(
                report,
                format_args!("found the same port twice; expected {expected}"),
            );
            None
        }
        _ => {
            place.problem(
                report,
                format_args!("found {} ports; expected {expected}", read.len()),
            );
            None
        }
    }
}

fn drain(place: &Place<'_>, report: &mut Report) -> Option<Duration> {
    let most = MAX_DRAIN.as_secs();
    let seconds = whole(place)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|seconds| *seconds <= most);
    if seconds.is_none() {
        place.unexpected(
            report,
            format_args!("a whole number of seconds from 0 to {most}, such as 10"),
        );
    }
    seconds.map(Duration::from_secs)
}

fn units(place: &Place<'_>, report: &mut Report) -> Vec<UnitTemplate> {
    let expected = "the name of a template unit, such as shop@.service";
    let items = place.items(report, "a list of template units, such as [shop@.service]");
    if items.len() > MAX_UNITS {
        place.problem(
            report,
            format_args!("found {} units; expected at most {MAX_UNITS}", items.len()),
        );
        return Vec::new();
    }
    let mut units = Vec::new();
    for item in items {
        let Some(text) = item.text(report, expected) else {
            continue;
        };
        match UnitTemplate::new(text) {
            Some(unit) if !units.contains(&unit) => units.push(unit),
            Some(_) => item.problem(report, format_args!("found {} twice", quoted(text))),
            None => item.unexpected(report, expected),
        }
    }
    units
}

fn whole(place: &Place<'_>) -> Option<i128> {
    match place
        .scalar()
        .and_then(|(text, _)| scalar::number(text.trim()))
    {
        Some(Number::Whole(whole)) => Some(whole),
        _ => None,
    }
}

/// Reports files that would bypass the slots.
fn place_files(place: &Place<'_>, strategy: &Strategy, files: &[FileMapping], report: &mut Report) {
    let (link, slots) = (strategy.link.as_path(), strategy.slots.as_path());
    for destination in files.iter().map(|file| file.destination.as_path()) {
        let found = quoted(&destination.to_string_lossy());
        if destination.starts_with(slots) {
            place.problem(
                report,
                format_args!(
                    "the destination {found} of \"files\" is in the slots; write a destination below {}, which leads to the right slot",
                    quoted(&link.to_string_lossy())
                ),
            );
        } else if link.starts_with(destination) && link != destination {
            place.problem(
                report,
                format_args!(
                    "the destination {found} of \"files\" contains the link; give files for {} and files for other folders \
                     entries of their own",
                    quoted(&link.to_string_lossy())
                ),
            );
        }
    }
    if !files
        .iter()
        .any(|file| strategy.covers(file.destination.as_path()))
    {
        place.warning(
            report,
            format_args!(
                "no destination of \"files\" is {} or below it, so both slots stay empty",
                quoted(&link.to_string_lossy())
            ),
        );
    }
}

/// The note for people who check a file with a strategy.
fn note(place: &Place<'_>, strategy: &Strategy) -> Finding {
    let link = strategy.link.as_path().display();
    place.finding(format_args!(
        "AWS's agents ignore this key and deploy the revision in place, to {link}; for a revision that works with both, \
         let scripts use ${{SLOT_DIR:-{link}}}{}, and let ApplicationStop stop only what belongs to that folder",
        strategy
            .ports
            .map(|ports| format!(" and ${{SLOT_PORT:-{}}}", ports.blue))
            .unwrap_or_default()
    ))
}
