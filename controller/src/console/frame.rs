//! The frame of a page: everything around its content.

use serde::Serialize;

use super::assets;

/// The pages of the navigation.
pub(super) const PAGES: &[(&str, &str)] = &[
    ("/console/", "Fleet"),
    ("/console/inbox", "Inbox"),
    ("/console/deployments", "Deployments"),
    ("/console/hosts", "Hosts"),
    (AUDIT, "Audit"),
];

/// The page that only users of the whole fleet see.
const AUDIT: &str = "/console/audit";

/// The data of the layout.
#[derive(Debug, Clone, Default)]
pub(super) struct Frame {
    pub(super) title: String,
    /// Absent before the login.
    pub(super) user: Option<User>,
    /// The path of the page.
    pub(super) path: String,
    /// The address of the same page as JSON; empty if there is none.
    pub(super) json: String,
    /// Commands that show or do the same.
    pub(super) commands: Vec<String>,
    pub(super) live: bool,
}

/// The user of a session.
#[derive(Debug, Clone, Serialize)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) role: &'static str,
    /// Whether the user sees only a part of the fleet.
    pub(super) is_limited: bool,
    pub(super) csrf: String,
}

/// A link of the navigation.
pub(super) struct Link {
    pub(super) href: &'static str,
    pub(super) label: &'static str,
    pub(super) is_current: bool,
}

impl Frame {
    /// The frame of a page without a user.
    pub(super) fn of_nobody(title: &str) -> Self {
        Frame {
            title: title.to_owned(),
            ..Frame::default()
        }
    }

    /// The same with parts that change while the page is open.
    pub(super) fn live(self) -> Self {
        Frame { live: true, ..self }
    }

    /// The token that each form sends in the field `csrf`.
    pub(super) fn csrf(&self) -> &str {
        self.user.as_ref().map_or("", |user| &user.csrf)
    }

    pub(super) fn links(&self) -> Vec<Link> {
        let current = PAGES
            .iter()
            .map(|(href, _)| *href)
            .filter(|href| self.path.starts_with(href))
            .max_by_key(|href| href.len());
        let is_limited = self.user.as_ref().is_some_and(|user| user.is_limited);
        let shown = PAGES
            .iter()
            .filter(|(href, _)| !is_limited || *href != AUDIT);
        let links = shown.map(|(href, label)| Link {
            href,
            label,
            is_current: current == Some(href),
        });
        links.collect()
    }

    /// The version of the style and the script.
    pub(super) fn assets(&self) -> &'static str {
        assets::version()
    }
}
