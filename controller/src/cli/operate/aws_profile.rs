//! The URL, the key and the region of AWS's clients: their environment variables, and the files of
//! `~/.aws`.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::OperateError;
use crate::client::Keys;

/// The settings of AWS's clients that a controller's client needs, too.
#[derive(Debug, Default)]
pub(super) struct Profile {
    pub(super) endpoint: Option<String>,
    pub(super) keys: Option<Keys>,
    pub(super) region: Option<String>,
    pub(super) ca_bundle: Option<PathBuf>,
}

/// Settings by name, of each section by name. The settings of a nested section have its name in
/// front, with a dot.
type Sections = HashMap<String, HashMap<String, String>>;

impl Profile {
    /// Reads the environment and the files; a variable takes precedence over both files.
    pub(super) fn find(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, OperateError> {
        let home = variable("HOME").map(PathBuf::from);
        let file = |name: &str, default: &str| {
            let named = variable(name).map(PathBuf::from);
            named.or_else(|| home.as_ref().map(|home| home.join(".aws").join(default)))
        };
        let credentials = read(file("AWS_SHARED_CREDENTIALS_FILE", "credentials"))?;
        let config = read(file("AWS_CONFIG_FILE", "config"))?;
        Self::of(variable, &parse(&credentials), &parse(&config))
    }

    fn of(
        variable: &dyn Fn(&str) -> Option<String>,
        credentials: &Sections,
        config: &Sections,
    ) -> Result<Self, OperateError> {
        let chosen = variable("AWS_PROFILE").or_else(|| variable("AWS_DEFAULT_PROFILE"));
        let name = chosen.as_deref().unwrap_or("default");
        let profile = config
            .get(&format!("profile {name}"))
            .or_else(|| config.get(name));
        let secrets = credentials.get(name);
        if chosen.is_some() && profile.is_none() && secrets.is_none() {
            return Err(OperateError::NoProfile(name.to_owned()));
        }
        let setting = |name: &str| {
            let sections = [secrets, profile].into_iter().flatten();
            sections
                .filter_map(|section| section.get(name))
                .next()
                .cloned()
        };
        let services = setting("services")
            .and_then(|name| config.get(&format!("services {name}")))
            .and_then(|services| services.get("codedeploy.endpoint_url").cloned());
        let from_variables = keys(
            variable("AWS_ACCESS_KEY_ID"),
            variable("AWS_SECRET_ACCESS_KEY"),
            variable("AWS_SESSION_TOKEN"),
        );
        Ok(Profile {
            endpoint: variable("AWS_ENDPOINT_URL_CODEDEPLOY")
                .or_else(|| variable("AWS_ENDPOINT_URL"))
                .or(services)
                .or_else(|| setting("endpoint_url")),
            keys: from_variables.or_else(|| {
                keys(
                    setting("aws_access_key_id"),
                    setting("aws_secret_access_key"),
                    setting("aws_session_token"),
                )
            }),
            region: variable("AWS_REGION")
                .or_else(|| variable("AWS_DEFAULT_REGION"))
                .or_else(|| setting("region")),
            ca_bundle: variable("AWS_CA_BUNDLE")
                .or_else(|| setting("ca_bundle"))
                .map(PathBuf::from),
        })
    }
}

fn keys(id: Option<String>, secret: Option<String>, token: Option<String>) -> Option<Keys> {
    let (access_key_id, secret_access_key) = id.zip(secret)?;
    Some(Keys {
        access_key_id,
        secret_access_key,
        session_token: token,
    })
}

/// Returns the text of a file; a missing one is empty.
fn read(path: Option<PathBuf>) -> Result<String, OperateError> {
    let Some(path) = path else {
        return Ok(String::new());
    };
    match std::fs::read_to_string(&path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(String::new())
        }
        found => found.map_err(|source| OperateError::Profile { path, source }),
    }
}

/// Reads the format of both files.
fn parse(text: &str) -> Sections {
    let mut sections = Sections::new();
    let (mut section, mut nested) = (String::new(), String::new());
    for line in text.lines() {
        let content = line.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = content
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
        {
            section = name.split_whitespace().collect::<Vec<_>>().join(" ");
            nested.clear();
            continue;
        }
        let Some((name, value)) = content.split_once('=') else {
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        let is_nested = line.starts_with([' ', '\t']) && !nested.is_empty();
        if !is_nested {
            // A setting without a value begins a nested section.
            nested = if value.is_empty() {
                name.to_owned()
            } else {
                String::new()
            };
        }
        let full = if is_nested {
            format!("{nested}.{name}")
        } else {
            name.to_owned()
        };
        if !value.is_empty() {
            let settings = sections.entry(section.clone()).or_default();
            settings.insert(full, value.to_owned());
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const CREDENTIALS: &str = "[default]\naws_access_key_id = AKIA1\naws_secret_access_key=s1\n\
        # a comment\n[shop]\naws_access_key_id = AKIA2\naws_secret_access_key = s2=\naws_session_token = t2\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\n[profile shop]\nservices = own\nca_bundle = /ca.pem\n\
        s3 =\n  endpoint_url = http://s3\n[services own]\ncodedeploy =\n  endpoint_url = http://cd:7080\n";

    fn found(variables: &[(&str, &str)]) -> Result<Profile, OperateError> {
        let variable = |wanted: &str| {
            let mut variables = variables.iter();
            variables
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| (*value).to_owned())
        };
        Profile::of(&variable, &parse(CREDENTIALS), &parse(CONFIG))
    }

    #[test]
    fn settings_come_from_variables_and_from_the_profile() {
        let profile = found(&[]).unwrap();
        assert_eq!(profile.keys.unwrap().access_key_id, "AKIA1");
        assert_eq!(
            (profile.region.as_deref(), profile.endpoint),
            (Some("eu-west-1"), None)
        );
        let profile = found(&[("AWS_PROFILE", "shop")]).unwrap();
        let keys = profile.keys.unwrap();
        assert_eq!(
            (
                keys.secret_access_key.as_str(),
                keys.session_token.as_deref()
            ),
            ("s2=", Some("t2"))
        );
        assert_eq!(profile.endpoint.as_deref(), Some("http://cd:7080"));
        assert_eq!(profile.ca_bundle.as_deref(), Some(Path::new("/ca.pem")));
        let profile = found(&[
            ("AWS_PROFILE", "shop"),
            ("AWS_ENDPOINT_URL", "http://all"),
            ("AWS_ACCESS_KEY_ID", "AKIA3"),
            ("AWS_SECRET_ACCESS_KEY", "s3"),
            ("AWS_REGION", "r"),
        ])
        .unwrap();
        let keys = profile.keys.unwrap();
        assert_eq!(
            (keys.access_key_id.as_str(), keys.session_token),
            ("AKIA3", None)
        );
        assert_eq!(profile.endpoint.as_deref(), Some("http://all"));
        assert_eq!(profile.region.as_deref(), Some("r"));
        assert!(matches!(
            found(&[("AWS_PROFILE", "gone")]),
            Err(OperateError::NoProfile(_))
        ));
    }
}
