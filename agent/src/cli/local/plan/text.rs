//! A plan as text for a terminal.

use std::fmt;

use codedeploy_hooks::install::{PathChange, Permissions};
use codedeploy_hooks::lifecycle::Origin;
use codedeploy_support::plain::harmless;

use crate::deployment::preview::{EventPreview, Preview};

/// Prints a preview in groups; the last line is a summary.
pub(super) struct Text<'a> {
    pub(super) preview: &'a Preview,
    pub(super) paint: Paint,
}

/// Colours, if they are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    /// Colours for a terminal, unless `NO_COLOR` has a value (no-color.org).
    pub(super) fn new(terminal: bool, no_color: Option<&str>) -> Self {
        Self(terminal && no_color.is_none())
    }

    pub(super) fn bad(self, text: impl fmt::Display) -> String {
        self.with("31", text)
    }

    fn title(self, text: impl fmt::Display) -> String {
        self.with("1", text)
    }

    fn good(self, text: impl fmt::Display) -> String {
        self.with("32", text)
    }

    fn odd(self, text: impl fmt::Display) -> String {
        self.with("33", text)
    }

    fn with(self, code: &str, text: impl fmt::Display) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }
}

/// Names come from the revision and from the host; they must not control the terminal.
fn printable(text: impl fmt::Display) -> String {
    harmless(&text.to_string()).into_owned()
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Text { preview, paint } = self;
        writeln!(f, "{}", paint.title("Events"))?;
        preview
            .events
            .iter()
            .try_for_each(|event| self.event(f, event))?;
        self.files(f)?;
        self.permissions(f)?;
        self.list(f, "Warnings", &preview.warnings, |text| paint.odd(text))?;
        self.list(f, "Conflicts", &preview.conflicts, |text| paint.bad(text))?;
        writeln!(f, "{}", self.summary())
    }
}

impl Text<'_> {
    fn event(&self, f: &mut fmt::Formatter<'_>, event: &EventPreview) -> fmt::Result {
        let what = match (event.origin, &event.archive) {
            _ if event.note.is_some() => event.note.clone().unwrap_or_default(),
            (None, _) => "by the agent".to_owned(),
            (Some(_), _) if event.scripts.is_empty() => "nothing to do".to_owned(),
            (Some(Origin::ThisDeployment), _) | (_, None) => String::new(),
            (Some(Origin::LastSuccessful), Some(archive)) => {
                format!("from the last successful deployment, {}", archive.display())
            }
            (Some(Origin::MostRecent), Some(archive)) => {
                format!("from the most recent deployment, {}", archive.display())
            }
        };
        writeln!(
            f,
            "{}",
            format!("  {:<18}  {}", event.event.name(), printable(what)).trim_end()
        )?;
        for script in &event.scripts {
            let spec = &script.script;
            let user = match (&spec.runas, spec.sudo) {
                (Some(user), false) => format!("as {user}"),
                (Some(user), true) => format!("as {user}, with sudo"),
                (None, false) => "as the agent".to_owned(),
                (None, true) => "with sudo".to_owned(),
            };
            let location = printable(spec.location.as_path().display());
            let user = printable(user);
            writeln!(
                f,
                "    {location}  {user}, at most {} s",
                spec.timeout.as_secs()
            )?;
            for problem in &script.problems {
                writeln!(
                    f,
                    "      {}: {}",
                    self.paint.bad("problem"),
                    printable(problem)
                )?;
            }
            for warning in &script.warnings {
                writeln!(
                    f,
                    "      {}: {}",
                    self.paint.odd("warning"),
                    printable(warning)
                )?;
            }
        }
        Ok(())
    }

    fn files(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut changes = self.preview.install.changes().peekable();
        if changes.peek().is_none() {
            return Ok(());
        }
        writeln!(f, "{}", self.paint.title("Files"))?;
        for change in changes {
            let path = printable(change.path().display());
            match change {
                PathChange::Created(_) => writeln!(f, "  {}  {path}", self.paint.good("create "))?,
                PathChange::Replaced(_) => writeln!(f, "  {}  {path}", self.paint.odd("replace"))?,
                PathChange::Removed(_) => writeln!(f, "  {}  {path}", self.paint.bad("remove "))?,
                PathChange::Kept(_) => writeln!(f, "  keep     {path}")?,
                PathChange::Unchanged(_) => writeln!(f, "  same     {path}")?,
            }
        }
        Ok(())
    }

    fn permissions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let permissions = self.preview.install.permissions();
        if permissions.is_empty() {
            return Ok(());
        }
        writeln!(f, "{}", self.paint.title("Permissions"))?;
        for Permissions {
            path,
            mode,
            owner,
            group,
            acl,
            selinux_type,
        } in permissions
        {
            let mut parts: Vec<String> = Vec::new();
            parts.extend(mode.map(|mode| format!("mode {mode:0>4}")));
            parts.extend(owner.map(|owner| format!("owner {owner}")));
            parts.extend(group.map(|group| format!("group {group}")));
            parts.extend((!acl.is_empty()).then(|| format!("ACL {}", acl.join(" "))));
            parts.extend(selinux_type.map(|kind| format!("SELinux type {kind}")));
            writeln!(f, "  {}  {}", printable(path), printable(parts.join(", ")))?;
        }
        Ok(())
    }

    fn list(
        &self,
        f: &mut fmt::Formatter<'_>,
        title: &str,
        lines: &[String],
        paint: impl Fn(&str) -> String,
    ) -> fmt::Result {
        if lines.is_empty() {
            return Ok(());
        }
        writeln!(f, "{}", self.paint.title(title))?;
        lines
            .iter()
            .try_for_each(|line| writeln!(f, "  {}", paint(&printable(line))))
    }

    fn summary(&self) -> String {
        let (mut created, mut replaced, mut removed, mut kept, mut unchanged) = (0, 0, 0, 0, 0);
        for change in self.preview.install.changes() {
            *match change {
                PathChange::Created(_) => &mut created,
                PathChange::Replaced(_) => &mut replaced,
                PathChange::Removed(_) => &mut removed,
                PathChange::Kept(_) => &mut kept,
                PathChange::Unchanged(_) => &mut unchanged,
            } += 1;
        }
        let counted = |number: usize, word: &str| match number {
            1 => format!("1 {word}"),
            number => format!("{number} {word}s"),
        };
        let mut line = format!(
            "{created} created, {replaced} replaced, {removed} removed, {kept} kept, {unchanged} unchanged; "
        );
        line += &counted(self.preview.conflicts.len(), "conflict");
        match self.preview.problems() {
            0 => {}
            problems => line += &format!(", {}", counted(problems, "script problem")),
        }
        if self.preview.can_start() {
            self.paint.good(line)
        } else {
            self.paint.bad(line)
        }
    }
}
