//! Decides which slot serves and which one is filled next. Pure.

use std::path::{Path, PathBuf};

use codedeploy_hooks::appspec::Strategy;
use codedeploy_hooks::slots::{Side, SlotName};

/// The object at the link's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// A real folder, from the time before slots.
    Folder,
    Link(PathBuf),
    Other,
}

/// The serving and the idle slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub live: Live,
    pub idle: SlotName,
}

/// The files that serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    Nothing,
    /// The folder at the link's path, which the switch turns into the slot blue.
    Folder,
    Slot(SlotName),
}

/// The reason why a path cannot be the link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error(
        "{} is a link to {}, which is not a slot in {}; remove it, or choose another link in \"strategy\"",
        link.display(), target.display(), slots.display()
    )]
    Elsewhere {
        link: PathBuf,
        target: PathBuf,
        slots: PathBuf,
    },
    #[error("{} is neither a link nor a folder; move it away, or choose another link in \"strategy\"", link.display())]
    NotALink { link: PathBuf },
}

impl Layout {
    /// Decides for what was found at the link's path.
    pub fn of(link: &Path, slots: &Path, found: &Found) -> Result<Self, LayoutError> {
        let link = link.to_path_buf();
        match found {
            Found::Nothing => Ok(Self {
                live: Live::Nothing,
                idle: SlotName::Blue,
            }),
            Found::Folder => Ok(Self {
                live: Live::Folder,
                idle: SlotName::Green,
            }),
            Found::Link(target) => {
                let leads = |slot: &SlotName| *target == slots.join(slot.name());
                match SlotName::BOTH.into_iter().find(leads) {
                    Some(slot) => Ok(Self {
                        live: Live::Slot(slot),
                        idle: slot.other(),
                    }),
                    None => Err(LayoutError::Elsewhere {
                        link,
                        target: target.clone(),
                        slots: slots.to_path_buf(),
                    }),
                }
            }
            Found::Other => Err(LayoutError::NotALink { link }),
        }
    }

    /// The slot that serves, if one does.
    pub fn serving(self) -> Option<SlotName> {
        match self.live {
            Live::Slot(slot) => Some(slot),
            Live::Nothing | Live::Folder => None,
        }
    }
}

/// The variables that describe the slots to the scripts of a deployment in `own`.
pub fn variables(strategy: &Strategy, own: SlotName, live: Live) -> Vec<(&'static str, String)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let Side { name, folder, port } = strategy.side(own);
    let mut variables = vec![("SLOT", name.to_string()), ("SLOT_DIR", text(&folder))];
    variables.extend(port.map(|port| ("SLOT_PORT", port.to_string())));
    match live {
        Live::Nothing => {}
        Live::Folder => variables.push(("LIVE_SLOT_DIR", text(strategy.link.as_path()))),
        Live::Slot(slot) => {
            let Side { folder, port, .. } = strategy.side(slot);
            variables.push(("LIVE_SLOT_DIR", text(&folder)));
            variables.extend(port.map(|port| ("LIVE_SLOT_PORT", port.to_string())));
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(found: Found) -> Result<Layout, LayoutError> {
        Layout::of(Path::new("/srv/app"), Path::new("/srv/app.slots"), &found)
    }

    #[test]
    fn the_link_decides_which_slot_is_filled() {
        let cases = [
            (Found::Nothing, Live::Nothing, SlotName::Blue),
            (Found::Folder, Live::Folder, SlotName::Green),
            (
                Found::Link("/srv/app.slots/blue".into()),
                Live::Slot(SlotName::Blue),
                SlotName::Green,
            ),
            (
                Found::Link("/srv/app.slots/green".into()),
                Live::Slot(SlotName::Green),
                SlotName::Blue,
            ),
        ];
        for (found, live, idle) in cases {
            assert_eq!(layout(found), Ok(Layout { live, idle }));
        }
    }

    #[test]
    fn what_is_no_link_to_a_slot_is_refused() {
        for target in [
            "/etc",
            "/srv/app.slots",
            "/srv/app.slots/red",
            "green",
            "/srv/app.slots/../x",
        ] {
            assert!(layout(Found::Link(target.into())).is_err(), "{target}");
        }
        assert!(layout(Found::Other).is_err());
    }
}
