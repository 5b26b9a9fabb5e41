//! The commands that make the same deployment as a form.

use codedeploy_api::codedeploy::CreateDeploymentInput;

use crate::revision::address;
use crate::words;

/// The commands that make the same deployment.
pub(super) fn commands(
    application: &str,
    group: &str,
    input: &CreateDeploymentInput,
) -> Vec<String> {
    let revision = input.revision.clone().unwrap_or_default();
    let (application, group) = (words::argument(application), words::argument(group));
    let mut aws = format!(
        "aws deploy create-deployment --application-name {application} --deployment-group-name {group}"
    );
    if let Some(object) = &revision.s3_location {
        let kind = object
            .bundle_type
            .as_ref()
            .map(|kind| kind.as_str().to_owned());
        let members = [
            ("bucket", object.bucket.clone()),
            ("key", object.key.clone()),
            ("bundleType", kind),
            ("version", object.version.clone()),
            ("eTag", object.e_tag.clone()),
        ];
        let members = members
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        let members = members.collect::<Vec<_>>().join(",");
        aws += &format!(" --s3-location {}", words::argument(&members));
    }
    if let Some(commit) = &revision.git_hub_location {
        let location = format!(
            "repository={},commitId={}",
            commit.repository.as_deref().unwrap_or_default(),
            commit.commit_id.as_deref().unwrap_or_default()
        );
        aws += &format!(" --github-location {}", words::argument(&location));
    }
    let mut own = revision.s3_location.as_ref().and_then(|_| {
        let revision = address::write(&revision)?;
        Some(format!(
            "codedeploy-controller deploy {application} {group} {}",
            words::argument(&revision)
        ))
    });
    let mut both = |of_aws: &str, of_own: &str, value: Option<&str>| {
        let value = value
            .map(|value| format!(" {}", words::argument(value)))
            .unwrap_or_default();
        aws += &format!(" --{of_aws}{value}");
        if let Some(own) = &mut own {
            *own += &format!(" --{of_own}{value}");
        }
    };
    if let Some(config) = &input.deployment_config_name {
        both("deployment-config-name", "config", Some(config));
    }
    if let Some(description) = &input.description {
        both("description", "description", Some(description));
    }
    if let Some(behavior) = &input.file_exists_behavior {
        both(
            "file-exists-behavior",
            "file-exists-behavior",
            Some(behavior.as_str()),
        );
    }
    if input.update_outdated_instances_only == Some(true) {
        both("update-outdated-instances-only", "outdated-only", None);
    }
    if let Some(instances) = &input.target_instances {
        let json = serde_json::to_string(instances).unwrap_or_default();
        aws += &format!(" --target-instances {}", words::argument(&json));
        own = None;
    }
    own.map(|own| own + " --wait")
        .into_iter()
        .chain([aws])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Fields;
    use super::*;

    #[test]
    fn the_commands_make_the_same_deployment() {
        let fields = Fields {
            config: "CodeDeployDefault.OneAtATime".into(),
            description: "it's new".into(),
            outdated_only: true,
            ..Fields::default()
        };
        let revision = address::read("s3://b/shop/2.tgz?versionId=v1").unwrap();
        let input = fields.input("shop", "web", revision);
        assert_eq!(
            commands("shop", "web", &input),
            [
                r"codedeploy-controller deploy shop web 's3://b/shop/2.tgz?versionId=v1' --config CodeDeployDefault.OneAtATime --description 'it'\''s new' --outdated-only --wait",
                r"aws deploy create-deployment --application-name shop --deployment-group-name web --s3-location bucket=b,key=shop/2.tgz,bundleType=tgz,version=v1 --deployment-config-name CodeDeployDefault.OneAtATime --description 'it'\''s new' --update-outdated-instances-only",
            ]
        );
    }
}
