//! The targets of the host's symbolic links, and whether they may be followed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::{NodeKind, Observer, Unreadable};
use crate::appspec::kernel_folder;
use crate::install::paths::{PathId, Paths};

/// The number of links that the kernel follows on one path.
const MOST_LINKS: usize = 40;

/// The target of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::install) enum Leads {
    /// An existing object, without links on its path.
    To(PathId),
    Nowhere,
    /// A place that the kernel makes: a link means something else there to each process that
    /// follows it.
    Kernel,
    Unsafe(Stranger),
}

/// A link and its target that belong to two different users, neither of them root or the one who
/// follows it. The owner of the link could redirect every operation to a file that is not theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::install) struct Stranger {
    pub(in crate::install) link: PathId,
    pub(in crate::install) owner: u32,
    pub(in crate::install) target: PathId,
    pub(in crate::install) target_owner: u32,
}

/// A link on the path, and the rest of its text, in reverse.
struct Walk {
    link: PathId,
    rest: Vec<OsString>,
}

impl Observer<'_> {
    /// Walks from link to link, as the kernel does, and checks each one.
    pub(super) fn follow(&mut self, link: PathId) -> Result<Leads, Unreadable> {
        if is_kernels(self.paths, link) {
            return Ok(Leads::Kernel);
        }
        let mut here = self.paths.parent(link).unwrap_or(PathId::ROOT);
        let mut walks = Vec::new();
        let mut links = 0;
        let mut next = Some(link);
        loop {
            if let Some(link) = next.take() {
                links += 1;
                if links > MOST_LINKS {
                    return Ok(Leads::Nowhere);
                }
                let Some(rest) = self.text(link)? else {
                    return Ok(Leads::Nowhere);
                };
                if rest.last().is_some_and(|first| first == "/") {
                    here = PathId::ROOT;
                    self.look(here)?;
                }
                walks.push(Walk { link, rest });
            }
            let Some(walk) = walks.last_mut() else {
                return Ok(Leads::To(here));
            };
            let Some(part) = walk.rest.pop() else {
                if let Some(stranger) = self.stranger(walk.link, here) {
                    return Ok(Leads::Unsafe(stranger));
                }
                walks.pop();
                continue;
            };
            match part.as_bytes() {
                b"/" | b"." => continue,
                b".." => {
                    here = self.paths.parent(here).unwrap_or(here);
                    continue;
                }
                _ => {}
            }
            let there = self.paths.child(here, &part);
            if is_kernels(self.paths, there) {
                return Ok(Leads::Kernel);
            }
            match self.look(there)? {
                None => return Ok(Leads::Nowhere),
                Some(NodeKind::Link) => next = Some(there),
                Some(NodeKind::Folder) => here = there,
                // More names can follow only after a folder.
                Some(_) if walks.iter().all(|walk| walk.rest.is_empty()) => here = there,
                Some(_) => return Ok(Leads::Nowhere),
            }
        }
    }

    /// The components of a link's text, in reverse; `None` if the link is gone.
    fn text(&self, link: PathId) -> Result<Option<Vec<OsString>>, Unreadable> {
        let path = self.paths.path(link);
        let text = match rustix::fs::readlink(&path, Vec::new()) {
            Ok(text) => text.into_bytes(),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => return Ok(None),
            Err(error) => return Err((path, error.into())),
        };
        let parts = Path::new(OsStr::from_bytes(&text)).components();
        Ok(Some(
            parts
                .rev()
                .map(|part| part.as_os_str().to_owned())
                .collect(),
        ))
    }

    fn stranger(&self, link: PathId, target: PathId) -> Option<Stranger> {
        let owner = |path| self.host.node(path).map(|node| node.uid);
        let (owner, target_owner) = (owner(link)?, owner(target)?);
        let trusted = [0, rustix::process::geteuid().as_raw(), target_owner];
        (!trusted.contains(&owner)).then_some(Stranger {
            link,
            owner,
            target,
            target_owner,
        })
    }
}

/// Returns the kernel's folder that a path names or is in.
pub(in crate::install) fn kernel_folder_of(paths: &Paths, path: PathId) -> Option<&'static str> {
    let name = |depth| {
        let around = paths
            .ancestors(path)
            .find(|path| paths.depth(*path) == depth);
        around.map(|path| paths.name(path))
    };
    kernel_folder(name(1), name(2))
}

/// Whether a path is in one of the kernel's folders where a link means something else to each
/// process.
fn is_kernels(paths: &Paths, path: PathId) -> bool {
    kernel_folder_of(paths, path).is_some_and(|folder| folder != "/dev")
}
