//! The key `traffic` of a strategy: the program in front of both slots that moves new connections
//! from one to the other.

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::fields::{Fields, Place, Repeated, Report, quoted};
use super::super::hooks::timeout;
use super::super::values::{archive_path, wrong_path};
use super::super::{ArchivePath, HostPath};
use super::UnitTemplate;
use crate::slots::SlotName;

/// The timeout of a script that moves traffic and sets none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// Debian's and Red Hat's place of the process id of nginx.
const NGINX_PID: &str = "/run/nginx.pid";

/// The largest number of words in a command line.
const MAX_WORDS: usize = 32;

/// The longest path of a socket (unix(7)), in bytes.
const MAX_SOCKET: usize = 107;

/// The longest name of a unit without its suffix, with room for that and for the slot.
const MAX_UNIT: usize = 200;

/// The providers, as the key `traffic` names them.
const PROVIDERS: [&str; 4] = ["haproxy", "nginx", "systemd-socket", "command"];

/// The way in which traffic moves from one slot to the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Traffic {
    /// The agent moves none: the link alone decides which slot serves.
    #[default]
    None,
    Haproxy(Haproxy),
    Nginx(Nginx),
    SystemdSocket(SystemdSocket),
    Command(Command),
}

/// One of the two values that belong to the slots blue and green.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerSlot<T> {
    pub blue: T,
    pub green: T,
}

/// A backend of an HAProxy with one server for each slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Haproxy {
    /// The Unix socket of the runtime API, with the level admin.
    pub socket: HostPath,
    pub backend: ProxyName,
    pub servers: PerSlot<ProxyName>,
}

/// A file that nginx includes, which names the serving slot's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nginx {
    pub include: HostPath,
    /// The file contains the whole `upstream` of this name; without a name, only its `server`.
    pub upstream: Option<UpstreamName>,
    pub test: CommandLine,
    pub reload: CommandLine,
    /// The file with the process id of its master.
    pub pid: HostPath,
}

/// A socket unit that systemd hands to one instance of a service or the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemdSocket {
    pub socket: SocketUnit,
    pub service: UnitTemplate,
}

/// A script that moves the traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub script: ScriptPlace,
    /// More than zero.
    pub timeout: Duration,
}

/// A script of the revision, or a program of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptPlace {
    Revision(ArchivePath),
    Host { folder: PathBuf, name: ArchivePath },
}

/// A program and its arguments, at least the program; no shell reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine(Vec<String>);

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// The name of a backend or server in HAProxy's runtime API: letters, digits and `-_.:`.
    ProxyName
    /// The name of an nginx `upstream`: letters, digits and `-_.`.
    UpstreamName
    /// The name of a socket unit, such as `shop.socket`.
    SocketUnit
}

impl Traffic {
    /// The provider, as the AppSpec names it.
    pub fn provider(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Haproxy(_) => "haproxy",
            Self::Nginx(_) => "nginx",
            Self::SystemdSocket(_) => "systemd-socket",
            Self::Command(_) => "command",
        }
    }

    /// Whether the provider sends connections to the slots' ports, so that it needs them.
    pub fn needs_ports(&self) -> bool {
        matches!(self, Self::Nginx(_))
    }
}

impl<T> PerSlot<T> {
    pub fn of(&self, slot: SlotName) -> &T {
        match slot {
            SlotName::Blue => &self.blue,
            SlotName::Green => &self.green,
        }
    }
}

impl CommandLine {
    fn of(words: &[&str]) -> Self {
        Self(words.iter().map(|word| (*word).to_owned()).collect())
    }

    /// The program, and its arguments.
    pub fn words(&self) -> (&str, &[String]) {
        self.0
            .split_first()
            .map_or(("", &[]), |(program, arguments)| (program, arguments))
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// Reads the value of `traffic`; `None` if there is a problem.
pub(super) fn traffic(place: &Place<'_>, report: &mut Report) -> Option<Traffic> {
    let expected = "one of haproxy, nginx, systemd-socket or command, with its settings below it";
    if matches!(place.scalar(), Some((text, _)) if text.trim() == "none") {
        return Some(Traffic::None);
    }
    let providers = place.fields(report, &PROVIDERS, Repeated::Refused, expected)?;
    let named: Vec<_> = PROVIDERS
        .iter()
        .filter_map(|name| Some((*name, providers.get(name)?)))
        .collect();
    let [(name, settings)] = named.as_slice() else {
        if named.is_empty() {
            place.problem(
                report,
                format_args!("names no provider; expected {expected}"),
            );
        }
        for (name, settings) in named.iter().skip(1) {
            let (first, _) = named[0];
            settings.problem(
                report,
                format_args!("{name} stands beside {first}; only one provider can move the traffic: remove one"),
            );
        }
        return None;
    };
    match *name {
        "haproxy" => haproxy(settings, report).map(Traffic::Haproxy),
        "nginx" => nginx(settings, report).map(Traffic::Nginx),
        "systemd-socket" => systemd_socket(settings, report).map(Traffic::SystemdSocket),
        _ => command(settings, report).map(Traffic::Command),
    }
}

fn haproxy(place: &Place<'_>, report: &mut Report) -> Option<Haproxy> {
    let keys = ["socket", "backend", "servers"];
    let expected =
        "\"socket\" and \"backend\", such as {socket: /run/haproxy/admin.sock, backend: shop}";
    let fields = place.fields(report, &keys, Repeated::Refused, expected)?;
    let of_socket =
        "the path of HAProxy's socket (\"stats socket\"), such as /run/haproxy/admin.sock";
    let socket = host_path(&fields, report, "socket", of_socket, None);
    let socket = socket.filter(|socket| fits_socket(&fields, report, socket.as_path()));
    let of_backend = "the name of a backend, such as shop (letters, digits and -_.:)";
    let backend = required(&fields, report, "backend", of_backend, proxy_name);
    let servers = servers(&fields, report);
    Some(Haproxy {
        socket: socket?,
        backend: backend?,
        servers: servers?,
    })
}

/// Without the key, the servers have the slots' names.
fn servers(fields: &Fields<'_>, report: &mut Report) -> Option<PerSlot<ProxyName>> {
    let Some(place) = fields.get("servers") else {
        let name = |slot: &str| ProxyName(slot.to_owned());
        return Some(PerSlot {
            blue: name("blue"),
            green: name("green"),
        });
    };
    let expected = "the server of each slot, such as {blue: shop1, green: shop2}";
    let servers = place.fields(report, &["blue", "green"], Repeated::Refused, expected)?;
    let of_server = "the name of a server of the backend (letters, digits and -_.:)";
    let blue = required(&servers, report, "blue", of_server, proxy_name);
    let green = required(&servers, report, "green", of_server, proxy_name);
    let (blue, green) = (blue?, green?);
    if blue == green {
        place.problem(
            report,
            format_args!(
                "both slots have the server {}; expected two servers",
                quoted(&blue.0)
            ),
        );
        return None;
    }
    Some(PerSlot { blue, green })
}

fn nginx(place: &Place<'_>, report: &mut Report) -> Option<Nginx> {
    let keys = ["include", "upstream", "test", "reload", "pid"];
    let expected =
        "\"include\", such as {include: /etc/nginx/conf.d/shop-upstream.conf, upstream: shop}";
    let fields = place.fields(report, &keys, Repeated::Refused, expected)?;
    let of_include = "the file that nginx includes, such as /etc/nginx/conf.d/shop-upstream.conf";
    let include = host_path(&fields, report, "include", of_include, None);
    let of_upstream = "the name of an upstream, such as shop (letters, digits and -_.)";
    let upstream = optional(&fields, report, "upstream", of_upstream, upstream_name);
    let test = command_line(&fields, report, "test", &["nginx", "-T", "-q"]);
    let reload = command_line(&fields, report, "reload", &["nginx", "-s", "reload"]);
    let of_pid = "the file with the process id of nginx, such as /run/nginx.pid";
    let pid = host_path(&fields, report, "pid", of_pid, Some(NGINX_PID));
    Some(Nginx {
        include: include?,
        upstream: upstream?,
        test: test?,
        reload: reload?,
        pid: pid?,
    })
}

fn systemd_socket(place: &Place<'_>, report: &mut Report) -> Option<SystemdSocket> {
    let expected =
        "\"socket\" and \"service\", such as {socket: shop.socket, service: shop@.service}";
    let fields = place.fields(report, &["socket", "service"], Repeated::Refused, expected)?;
    let of_socket = "the name of a socket unit, such as shop.socket";
    let socket = required(&fields, report, "socket", of_socket, socket_unit);
    let of_service = "the name of a template whose instances are the slots, such as shop@.service";
    let service = required(&fields, report, "service", of_service, UnitTemplate::new);
    Some(SystemdSocket {
        socket: socket?,
        service: service?,
    })
}

/// The location alone is short for a command with the default timeout.
fn command(place: &Place<'_>, report: &mut Report) -> Option<Command> {
    let of_location = "a script of the revision, such as scripts/move_traffic.sh, or a program of the host, such as /usr/local/sbin/move-traffic";
    if place.scalar().is_some() {
        return Some(Command {
            script: script_place(place, report, of_location)?,
            timeout: DEFAULT_TIMEOUT,
        });
    }
    let expected = "a script, such as {location: scripts/move_traffic.sh, timeout: 60}";
    let known = ["location", "timeout"];
    let fields = place.fields(report, &known, Repeated::Refused, expected)?;
    let script = fields
        .require(report, "location", of_location)
        .and_then(|place| script_place(place, report, of_location));
    let timeout = match fields.get("timeout") {
        Some(place) => timeout(place, report),
        None => Some(DEFAULT_TIMEOUT),
    };
    Some(Command {
        script: script?,
        timeout: timeout?,
    })
}

/// A path that begins with '/' is one of the host, unlike the locations of hooks.
fn script_place(place: &Place<'_>, report: &mut Report, expected: &str) -> Option<ScriptPlace> {
    let text = place.text(report, expected)?;
    let script = if text.starts_with('/') {
        program(checked_path(place, report, text)?.as_path())
    } else {
        let script = archive_path(place, report, text)?;
        (!script.is_root()).then_some(ScriptPlace::Revision(script))
    };
    if script.is_none() {
        place.unexpected(report, expected);
    }
    script
}

fn program(path: &Path) -> Option<ScriptPlace> {
    let name = ArchivePath::new(path.file_name()?.to_str()?).ok()?;
    let folder = path.parent()?.to_path_buf();
    Some(ScriptPlace::Host { folder, name })
}

/// Reads the path of a file on the host; without the key, the `default`.
fn host_path(
    fields: &Fields<'_>,
    report: &mut Report,
    key: &str,
    expected: &str,
    default: Option<&str>,
) -> Option<HostPath> {
    if fields.get(key).is_none()
        && let Some(default) = default
    {
        return HostPath::new(default).ok();
    }
    let place = fields.require(report, key, expected)?;
    let text = place.text(report, expected)?;
    let path = checked_path(place, report, text)?;
    if path.as_path() == Path::new("/") || text.ends_with('/') {
        place.unexpected(report, expected);
        return None;
    }
    Some(path)
}

fn checked_path(place: &Place<'_>, report: &mut Report, text: &str) -> Option<HostPath> {
    HostPath::new(text)
        .map_err(|wrong| wrong_path(place, report, text, wrong))
        .ok()
}

fn fits_socket(fields: &Fields<'_>, report: &mut Report, socket: &Path) -> bool {
    let bytes = socket.as_os_str().len();
    if bytes > MAX_SOCKET
        && let Some(place) = fields.get("socket")
    {
        place.problem(
            report,
            format_args!(
                "has {bytes} bytes; the path of a socket must not have more than {MAX_SOCKET}"
            ),
        );
        return false;
    }
    true
}

fn required<T>(
    fields: &Fields<'_>,
    report: &mut Report,
    key: &str,
    expected: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let place = fields.require(report, key, expected)?;
    named(place, report, expected, read)
}

/// The outer `None` means that there is a problem.
fn optional<T>(
    fields: &Fields<'_>,
    report: &mut Report,
    key: &str,
    expected: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Option<Option<T>> {
    match fields.get(key) {
        Some(place) => named(place, report, expected, read).map(Some),
        None => Some(None),
    }
}

fn named<T>(
    place: &Place<'_>,
    report: &mut Report,
    expected: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let value = read(place.text(report, expected)?);
    if value.is_none() {
        place.unexpected(report, expected);
    }
    value
}

fn proxy_name(text: &str) -> Option<ProxyName> {
    word(text, "-_.:", 64).then(|| ProxyName(text.to_owned()))
}

fn upstream_name(text: &str) -> Option<UpstreamName> {
    word(text, "-_.", 64).then(|| UpstreamName(text.to_owned()))
}

fn socket_unit(text: &str) -> Option<SocketUnit> {
    let stem = text.strip_suffix(".socket")?;
    word(stem, "-_.:", MAX_UNIT).then(|| SocketUnit(text.to_owned()))
}

/// Whether the text has letters, digits and these marks, and does not look like an option.
fn word(text: &str, marks: &str, longest: usize) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    (1..=longest).contains(&text.len())
        && text.chars().all(allowed)
        && !text.starts_with(['-', '.'])
}

fn command_line(
    fields: &Fields<'_>,
    report: &mut Report,
    key: &str,
    default: &[&str],
) -> Option<CommandLine> {
    let Some(place) = fields.get(key) else {
        return Some(CommandLine::of(default));
    };
    let expected = format!(
        "a program and its arguments as a list, such as [{}]",
        default.join(", ")
    );
    let problems = report.problems.len();
    let mut words = Vec::new();
    for item in place.items(report, &expected) {
        match item.scalar() {
            Some((text, _)) if !text.contains('\0') => words.push(text.to_owned()),
            _ => item.unexpected(report, "a word, without a list or mapping"),
        }
    }
    if report.problems.len() > problems {
        return None;
    }
    let program = words.first().map(|word| word.trim());
    if program.is_none_or(str::is_empty) || words.len() > MAX_WORDS {
        place.unexpected(
            report,
            format_args!("{expected}, of at most {MAX_WORDS} words"),
        );
        return None;
    }
    Some(CommandLine(words))
}
