//! `config`: shows the effective settings, or everything that is wrong with them. It runs as the
//! service's user, who must be able to read every file.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use serde_json::{Value, json};

use super::data_dir::DataDir;
use super::table::table;
use super::{CliError, output};
use crate::config::console::Login;
use crate::config::metrics::Metrics;
use crate::config::show::{Line, show};
use crate::config::{Arguments, ConfigError, Settings};
use crate::error::chain;
use crate::outgoing::Outgoing;
use crate::tls;
use crate::web_identity::IdentityProviders;

/// The file of the package.
const PACKAGED: &str = "/etc/codedeploy-controller/controller.yml";

/// The file to read if none is named.
pub(super) fn packaged_file() -> Option<PathBuf> {
    let packaged = Path::new(PACKAGED);
    // A file that cannot be examined counts as present; reading it reports the error.
    packaged
        .try_exists()
        .unwrap_or(true)
        .then(|| packaged.to_owned())
}

pub(super) fn config(
    data: &DataDir,
    config_file: Option<PathBuf>,
    json: bool,
) -> Result<(), CliError> {
    let arguments = Arguments {
        data_dir: data.path().to_owned(),
        listen: None,
        region: None,
        account_id: None,
        insecure_http: false,
        config_file: config_file.or_else(packaged_file),
    };
    let found = match data.visit(|_| look(&arguments))? {
        Err(ConfigError::Read { path, source })
            if geteuid().is_root() && source.kind() == io::ErrorKind::PermissionDenied =>
        {
            warn(&format!(
                "{} cannot be read by the owner of {}, which is the service's user: chgrp it to the user's group, chmod g+r",
                path.display(),
                arguments.data_dir.display()
            ));
            look(&arguments)
        }
        found => found,
    };
    let Found { lines, warnings } = found?;
    warnings.iter().for_each(|warning| warn(warning));
    if arguments.config_file.is_none() {
        output::complain(format_args!(
            "no file was read: {PACKAGED} does not exist, and --config-file names none"
        ));
    }
    let shown = if json {
        format!("{:#}", json!(lines))
    } else {
        as_table(&lines)
    };
    Ok(output::show(shown)?)
}

fn warn(text: &str) {
    output::complain(format_args!("warning: {text}"));
}

/// Settings with which the service would start, and warnings for its operator.
struct Found {
    lines: Vec<Line>,
    warnings: Vec<String>,
}

fn look(arguments: &Arguments) -> Result<Found, ConfigError> {
    let lines = show(arguments.clone())?;
    let settings = Settings::load(arguments.clone())?;
    let mut mistakes = Vec::new();
    let mut warnings = tls::check(&settings.tls).unwrap_or_else(|error| {
        mistakes.push(ConfigError::Other(chain(&error)));
        Vec::new()
    });
    if let Err(error) = Outgoing::open(settings.ca_bundle.as_deref()) {
        mistakes.push(ConfigError::Other(chain(&error)));
    }
    if let Err(error) = IdentityProviders::open(&settings.identity_providers) {
        mistakes.push(ConfigError::Other(chain(&error)));
    }
    if let Some(Err(error)) = settings.metrics.as_ref().map(Metrics::token) {
        mistakes.push(ConfigError::Metrics(error));
    }
    if let Some(Err(error)) = settings.login().map(Login::secret) {
        mistakes.push(ConfigError::Console(error));
    }
    for path in settings.secret_files() {
        if is_readable_by_all(path) {
            warnings.push(format!("{}: {READABLE}", path.display()));
        }
    }
    if mistakes.is_empty() {
        Ok(Found { lines, warnings })
    } else {
        Err(ConfigError::of(mistakes))
    }
}

/// The warning about a file with secrets that others can read.
pub(super) const READABLE: &str =
    "every user of this machine can read the secrets in this file: chmod o-r";

pub(super) fn is_readable_by_all(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o004 != 0)
}

fn as_table(lines: &[Line]) -> String {
    let row = |line: &Line| {
        let value = match &line.value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.escape_debug().to_string(),
            other => other.to_string(),
        };
        [line.key.clone(), value, line.origin.clone()]
    };
    table(
        ["KEY", "VALUE", "FROM"],
        &lines.iter().map(row).collect::<Vec<_>>(),
    )
}
