//! A case of the comparison: the deployment, and the expected result.

/// One deployment to one host.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Path and text, or a link's target after `->`.
    pub(crate) bundle: &'static [(&'static str, &'static str)],
    /// The AppSpec after `version` and `os`.
    pub(crate) appspec: &'static str,
    /// The host's files before, as in `bundle`; a folder ends in `/`.
    pub(crate) before: &'static [(&'static str, &'static str)],
    pub(crate) options: &'static [&'static str],
    /// A part of the failure message; empty for a success.
    pub(crate) failure: &'static str,
    /// Everything on the host afterwards: path, mode, text or target.
    pub(crate) host: &'static [&'static str],
    /// The script log without its times.
    pub(crate) log: &'static [&'static str],
}

pub(crate) const PLAIN: Case = Case {
    name: "",
    bundle: &[("f", "new"), ("d/g", "deep"), ("d/e/h", "deeper")],
    appspec: "",
    before: &[],
    options: &[],
    failure: "",
    host: &[],
    log: &[],
};

/// The whole host of a deployment that copies `d` to `@/app`.
pub(crate) const INSTALLED: &[&str] = &[
    "app/ 0755",
    "app/e/ 0755",
    r#"app/e/h 0644 "deeper""#,
    r#"app/g 0644 "deep""#,
];
