//! The options of `codedeploy-local`, and the revision that they describe.

mod location;

use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use codedeploy_api::lifecycle::{InvalidEventName, LifecycleEvent};
use codedeploy_api::specification::{
    AgentActionOverrides, AgentOverrides, FileExistsBehavior, GitHubRevisionDocument,
    LocalRevisionDocument, RevisionDocument, S3RevisionDocument, SpecificationBinding,
    SpecificationDocument,
};

use crate::cli::local::events;
use crate::deployment::appspec::where_it_belongs;
use crate::spec::parse::APPSPEC_FILENAMES;
use location::{Location, S3Location, github_location, s3_location};

/// The bundle to deploy, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The bundle: a path, s3://bucket/key?versionId=…&etag=…, or a repository on
    /// https://github.com [default: the current folder]
    #[arg(short = 'l', long, value_name = "LOCATION", value_parser = NonEmptyStringValueParser::new())]
    bundle_location: Option<String>,
    /// The bundle's type.
    #[arg(
        short = 't',
        long,
        value_name = "tgz|tar|zip|directory",
        default_value = "directory"
    )]
    r#type: String,
    /// How to handle an existing file that was not deployed: DISALLOW, OVERWRITE or RETAIN.
    #[arg(short = 'b', long, value_name = "BEHAVIOR", default_value = "DISALLOW", value_parser = behavior)]
    file_exists_behavior: FileExistsBehavior,
    /// The deployment group; the files of its last deployment are replaced.
    #[arg(
        short = 'g',
        long,
        value_name = "ID",
        default_value = "default-local-deployment-group"
    )]
    deployment_group: String,
    /// The group's name, passed to scripts [default: LocalFleet]
    #[arg(short = 'd', long, value_name = "NAME")]
    deployment_group_name: Option<String>,
    /// The application's name, passed to scripts [default: the bundle's location]
    #[arg(short = 'a', long, value_name = "NAME")]
    application_name: Option<String>,
    /// Lifecycle events to run, comma-separated, in this order. DownloadBundle and Install run
    /// first unless listed.
    #[arg(short = 'e', long, value_name = "EVENTS")]
    pub(super) events: Option<String>,
    /// The agent's configuration.
    #[arg(short = 'c', long, value_name = "FILE")]
    pub(super) agent_configuration_file: Option<PathBuf>,
    /// The AppSpec file's name inside the bundle [default: appspec.yml]
    #[arg(short = 'A', long, value_name = "NAME")]
    appspec_filename: Option<String>,
    /// The token for a private repository.
    #[arg(
        long,
        env = "CODEDEPLOY_GITHUB_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    github_token: Option<String>,
    /// Print version.
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum UsageError {
    #[error("--type: found {found:?}; expected tgz, tar, zip or directory")]
    Type { found: String },
    #[error(
        "--bundle-location: {location} is reached without encryption; use https:// instead of http://"
    )]
    PlainHttp { location: String },
    #[error(
        "--bundle-location: {location} is not a repository on GitHub; expected https://github.com/OWNER/REPOSITORY or https://api.github.com/repos/OWNER/REPOSITORY/zipball/REF"
    )]
    NotGitHub { location: String },
    #[error(
        "--bundle-location: {location} is not an object in S3; expected s3://BUCKET/KEY?versionId=…&etag=…"
    )]
    NotS3 { location: String },
    #[error("--bundle-location: {} cannot be found", path.display())]
    Missing {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("--bundle-location: {} is a folder, but --type is {kind}; use --type directory or name the bundle's file", path.display())]
    Folder { path: PathBuf, kind: String },
    #[error("--bundle-location: {} is a file, but --type is directory; use --type tgz, tar or zip", path.display())]
    File { path: PathBuf },
    #[error("--type directory cannot be in S3 or on GitHub; use --type tgz, tar or zip")]
    RemoteDirectory,
    #[error("--bundle-location: cannot look into the folder {}; deploy as a user who may", path.display())]
    Closed {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("--bundle-location: the folder {} has no AppSpec file {name}; {}", path.display(), where_it_belongs(path, name))]
    NoAppSpec { path: PathBuf, name: String },
    #[error("--events: {problem}{}", meant(*nearest))]
    EventName {
        problem: InvalidEventName,
        nearest: Option<&'static str>,
    },
    #[error("--events: {event} is not a standard lifecycle event, and the AppSpec file has no scripts for it{}", meant(nearest.as_deref()))]
    UnknownEvent {
        event: LifecycleEvent,
        nearest: Option<String>,
    },
    #[error("--events: only a service with a load balancer performs {event}; there is none here")]
    ServiceEvent { event: LifecycleEvent },
    #[error(
        "--events: {event} cannot come before {limit}; only {} can{}",
        allowed.iter().map(LifecycleEvent::name).collect::<Vec<_>>().join(", "),
        if matches!(limit, LifecycleEvent::Install) { " and custom events" } else { "" }
    )]
    EventOrder {
        event: LifecycleEvent,
        limit: LifecycleEvent,
        allowed: Vec<LifecycleEvent>,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!("; did you mean {name}?"))
        .unwrap_or_default()
}

/// Treats an empty value, such as that of an unset variable, as absent.
fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}

fn behavior(text: &str) -> Result<FileExistsBehavior, String> {
    if text.is_empty() {
        Ok(FileExistsBehavior::Disallow)
    } else {
        text.parse()
    }
}

impl Arguments {
    /// Takes the configuration of the whole program, unless this command has its own.
    pub(super) fn inherit_configuration(&mut self, named: Option<PathBuf>) {
        self.agent_configuration_file = self.agent_configuration_file.take().or(named);
    }

    /// Returns the bundle's location; finds every mistake in it.
    pub(super) fn location(&self) -> Result<Location, UsageError> {
        let kind = self.r#type.as_str();
        if !["tgz", "tar", "zip", "directory"].contains(&kind) {
            return Err(UsageError::Type { found: kind.into() });
        }
        let location = self.bundle_location.as_deref().unwrap_or(".");
        if location.starts_with("http:") {
            return Err(UsageError::PlainHttp {
                location: location.into(),
            });
        }
        let remote = if location.starts_with("s3:") {
            Some(
                s3_location(location)
                    .map(Location::S3)
                    .ok_or_else(|| UsageError::NotS3 {
                        location: location.into(),
                    })?,
            )
        } else if location.starts_with("https:") {
            let found = github_location(location, kind);
            Some(found.ok_or_else(|| UsageError::NotGitHub {
                location: location.into(),
            })?)
        } else {
            None
        };
        match remote {
            Some(_) if kind == "directory" && location.starts_with("s3:") => {
                Err(UsageError::RemoteDirectory)
            }
            Some(remote) => Ok(remote),
            None => self.local_path(Path::new(location), kind),
        }
    }

    fn local_path(&self, path: &Path, kind: &str) -> Result<Location, UsageError> {
        let path = path.canonicalize().map_err(|source| UsageError::Missing {
            path: path.into(),
            source,
        })?;
        match (path.is_dir(), kind) {
            (true, "directory") => {
                // A file that is named explicitly is the only one that counts.
                let named = given(&self.appspec_filename);
                let names = named.map_or(APPSPEC_FILENAMES.to_vec(), |name| vec![name]);
                match names
                    .iter()
                    .map(|name| path.join(name).symlink_metadata())
                    .find_map(found)
                {
                    Some(Ok(())) => Ok(Location::Directory(path)),
                    Some(Err(source)) => Err(UsageError::Closed { path, source }),
                    None => Err(UsageError::NoAppSpec {
                        path,
                        name: names[0].to_owned(),
                    }),
                }
            }
            (true, kind) => Err(UsageError::Folder {
                path,
                kind: kind.into(),
            }),
            (false, "directory") => Err(UsageError::File { path }),
            (false, _) => Ok(Location::File(path)),
        }
    }

    /// Builds the specification that a service would send.
    pub(super) fn specification(
        &self,
        id: &str,
        location: &Location,
        order: &[LifecycleEvent],
    ) -> SpecificationDocument {
        // The location as the user typed it.
        let application = match (
            given(&self.application_name),
            &self.bundle_location,
            location,
        ) {
            (Some(name), ..) => name.to_owned(),
            (None, Some(typed), _) => typed.clone(),
            (None, None, Location::File(path) | Location::Directory(path)) => {
                path.display().to_string()
            }
            (None, None, _) => String::new(),
        };
        let behavior = self.file_exists_behavior.name().to_owned();
        SpecificationDocument {
            deployment_id: id.to_owned(),
            deployment_group_id: self.deployment_group.clone(),
            deployment_group_name: given(&self.deployment_group_name)
                .unwrap_or("LocalFleet")
                .to_owned(),
            application_name: application,
            deployment_creator: Some("codedeploy-local".into()),
            deployment_type: None,
            app_spec_filename: given(&self.appspec_filename).map(str::to_owned),
            agent_action_overrides: Some(AgentActionOverrides {
                agent_overrides: Some(AgentOverrides {
                    file_exists_behavior: Some(behavior),
                }),
            }),
            all_possible_lifecycle_events: Some(events::possible(order)),
            revision: self.revision(location),
            github_access_token: given(&self.github_token).map(str::to_owned),
            reuse_archive_from_deployment_id: None,
            trace_parent: None,
            binding: SpecificationBinding::default(),
        }
    }

    fn revision(&self, location: &Location) -> RevisionDocument {
        let bundle_type = self.r#type.clone();
        let local = |kind: &str, path: &Path, bundle_type: &str| {
            let location = path.to_string_lossy().into_owned();
            let local = LocalRevisionDocument {
                location,
                bundle_type: bundle_type.into(),
            };
            (kind.to_owned(), None, None, Some(local))
        };
        let (revision_type, s3_revision, github_revision, local_revision) = match location {
            Location::S3(S3Location {
                bucket,
                key,
                version,
                etag,
            }) => {
                let (bucket, key, version, etag) =
                    (bucket.clone(), key.clone(), version.clone(), etag.clone());
                let s3 = S3RevisionDocument {
                    bucket,
                    key,
                    bundle_type,
                    version,
                    etag,
                };
                ("S3".to_owned(), Some(s3), None, None)
            }
            Location::GitHub {
                account,
                repository,
                commit_id,
                bundle_type,
            } => {
                let github = GitHubRevisionDocument {
                    account: account.clone(),
                    repository: repository.clone(),
                    commit_id: commit_id.clone(),
                    bundle_type: Some(bundle_type.clone()),
                };
                ("GitHub".to_owned(), None, Some(github), None)
            }
            Location::File(path) => local("Local File", path, &bundle_type),
            Location::Directory(path) => local("Local Directory", path, "directory"),
        };
        RevisionDocument {
            revision_type,
            s3_revision,
            github_revision,
            local_revision,
        }
    }
}

/// `None` if the object does not exist; otherwise that it does, or why that is unknown.
fn found(looked: std::io::Result<std::fs::Metadata>) -> Option<std::io::Result<()>> {
    match looked {
        Ok(_) => Some(Ok(())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn location(arguments: &[&str]) -> Result<Location, String> {
        let line = crate::cli::local::CommandLine::try_parse_from(
            [&["codedeploy-local"], arguments].concat(),
        );
        line.unwrap()
            .arguments
            .location()
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_object_in_s3_may_name_its_version_and_etag() {
        let found = location(&[
            "-t",
            "zip",
            "-l",
            "s3://bucket/some/key.zip?versionId=v1&etag=abc",
        ])
        .unwrap();
        let expected = S3Location {
            bucket: "bucket".into(),
            key: "some/key.zip".into(),
            version: Some("v1".into()),
            etag: Some("abc".into()),
        };
        assert_eq!(found, Location::S3(expected));
        assert!(
            location(&["-t", "zip", "-l", "s3://bucket"])
                .unwrap_err()
                .contains("s3://BUCKET/KEY")
        );
    }

    #[test]
    fn what_cannot_be_deployed_is_refused_before_anything_happens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let file = folder.path().join("b.zip");
        std::fs::write(&file, "").unwrap();
        let file = file.to_str().unwrap();
        let cases = [
            (
                vec!["-t", "rar", "-l", path],
                "expected tgz, tar, zip or directory",
            ),
            (
                vec!["-t", "zip", "-l", "http://github.com/a/b"],
                "use https://",
            ),
            (
                vec!["-t", "zip", "-l", "https://example.com/x"],
                "is not a repository on GitHub",
            ),
            (vec!["-t", "zip", "-l", "/nowhere/b.zip"], "cannot be found"),
            (
                vec!["-t", "zip", "-l", path],
                "is a folder, but --type is zip",
            ),
            (
                vec!["-t", "directory", "-l", file],
                "is a file, but --type is directory",
            ),
            (vec!["-l", path], "has no AppSpec file appspec.yml"),
            (
                vec!["-l", path, "-A", "other.yml"],
                "has no AppSpec file other.yml",
            ),
            (
                vec!["-l", "s3://bucket/key"],
                "--type directory cannot be in S3",
            ),
        ];
        for (arguments, expected) in cases {
            let message = location(&arguments).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        std::fs::write(folder.path().join("appspec.yaml"), "").unwrap();
        assert!(location(&["-l", path]).is_ok());
        let message = location(&["-l", path, "-A", "other.yml"]).unwrap_err();
        assert!(
            message.contains("has no AppSpec file other.yml"),
            "{message}"
        );
    }
}
