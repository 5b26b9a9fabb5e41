//! Finds the planned files and folders that the host has already, exactly as planned. Reads both
//! sides, and changes nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::access::{self, ACCESS_ACL, Access, DEFAULT_ACL};
use super::decision::{Decision, Planned};
use super::layout::WantedKind;
use super::paths::{ByPath, PathId, Paths};
use super::snapshot::{Host, NodeKind, Revision};
use super::verified::Verified;
use super::{Stop, parallel};
use crate::fs::{Handles, Known as KnownFolders, Status};

const LABEL: &str = "security.selinux";
const SET_GROUP_ID: u32 = 0o2000;

/// Bytes that are compared at once.
const AT_ONCE: usize = 64 * 1024;

/// The longest list of attribute names that a file may have.
const MAX_ATTRIBUTES: usize = 1024;

/// Longer than a step of the clock that the kernel takes the times of changes from.
const STEP: Duration = Duration::from_millis(15);

/// The planned objects that are on the host already.
#[derive(Debug, Default)]
pub(super) struct Same {
    /// The numbers of the planned files, in order.
    pub(super) files: Vec<(u32, Verified)>,
    /// The numbers of the planned folders, in order; their contents may differ.
    pub(super) folders: Vec<u32>,
}

impl Same {
    /// Compares the planned objects with those at their paths. An object that cannot be read is not
    /// the same.
    pub(super) fn look(
        decision: &Decision,
        revision: &Revision,
        host: &Host,
        paths: &Paths,
        stop: Stop<'_>,
    ) -> Self {
        let mut looker = Looker::new(decision, revision, host, paths);
        let mut same = Self::default();
        let mut candidates = Vec::new();
        let mut are_same = ByPath::default();
        let mut handles = Handles::default();
        for (number, planned) in (0_u32..).zip(&decision.planned) {
            let Some(around) = looker.paths.parent(planned.path) else {
                continue;
            };
            let can_stay = !decision.places.contains(around) || are_same.contains(around);
            if !can_stay || stop.is_cancelled() || !looker.is_there(planned) {
                continue;
            }
            looker.look_around(around, &mut handles);
            match planned.kind {
                WantedKind::Folder => {
                    if looker
                        .is_same_folder(planned, &mut handles)
                        .unwrap_or_default()
                    {
                        are_same.insert(planned.path, ());
                        same.folders.push(number);
                    }
                }
                WantedKind::File => candidates.push(number),
                // It costs no more to make another.
                WantedKind::Link => {}
            }
        }
        let folders = Arc::new(std::mem::take(&mut looker.folders));
        let found = Mutex::new(Vec::with_capacity(candidates.len()));
        let looker = &looker;
        let handles = || Handles::to(Arc::clone(&folders));
        let look = |number: &u32, handles: &mut Handles| {
            let planned = &decision.planned[*number as usize];
            let verified = looker.same_file(planned, handles).ok().flatten();
            if let Some(verified) = verified {
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.push((*number, verified));
            }
            if stop.is_cancelled() { Err(()) } else { Ok(()) }
        };
        // What was verified before the planning was stopped is of no use.
        let _ = parallel::each(&candidates, handles, look);
        same.files = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        same.files.sort_unstable_by_key(|(number, _)| *number);
        same
    }
}

/// The properties of a folder that new objects in it inherit.
#[derive(Debug, Default)]
struct Around {
    sets_group: bool,
    has_default_acl: bool,
    label: Option<Vec<u8>>,
}

struct Looker<'a> {
    decision: &'a Decision,
    revision: &'a Revision,
    host: &'a Host,
    paths: &'a Paths,
    /// The SELinux types that permissions ask for.
    contexts: HashMap<PathId, &'a str>,
    /// The folders of the objects; `None` if one cannot be examined.
    around: HashMap<PathId, Option<Around>>,
    folders: KnownFolders,
}

impl<'a> Looker<'a> {
    fn new(
        decision: &'a Decision,
        revision: &'a Revision,
        host: &'a Host,
        paths: &'a Paths,
    ) -> Self {
        let contexts = decision.granted.contexts();
        Self {
            decision,
            revision,
            host,
            paths,
            contexts: contexts
                .map(|(path, context)| (path, context.kind.as_str()))
                .collect(),
            around: HashMap::new(),
            folders: KnownFolders::new(),
        }
    }

    /// Whether an object of the same kind is there, which the Install would replace.
    fn is_there(&self, planned: &Planned) -> bool {
        let Some(node) = self.host.node(planned.path) else {
            return false;
        };
        let kind = match planned.kind {
            WantedKind::File => NodeKind::File,
            WantedKind::Folder => NodeKind::Folder,
            WantedKind::Link => NodeKind::Link,
        };
        node.kind == kind
            && !node.immutable
            && !node.mount_point
            && self.decision.replaces(planned)
            && (kind == NodeKind::Folder
                || self.revision.name(planned.source) == self.paths.name(planned.path))
    }

    fn look_around(&mut self, folder: PathId, handles: &mut Handles) {
        if self.around.contains_key(&folder) {
            return;
        }
        let path = self.paths.path(folder);
        let look = |handles: &mut Handles| {
            let (opened, _) = handles.parent(&path.join("any"))?;
            Ok::<_, io::Error>(Around {
                sets_group: rustix::fs::fstat(&opened)?.st_mode & SET_GROUP_ID != 0,
                has_default_acl: access::attribute(&opened, DEFAULT_ACL)?.is_some(),
                label: access::attribute(&opened, LABEL)?,
            })
        };
        let found = look(handles).ok();
        self.around.insert(folder, found);
        let known = self.host.folder(folder);
        self.folders.extend(known.map(|known| (path, known)));
    }

    /// Returns what the folder of an object passes on, if it was examined.
    fn inherited(&self, planned: &Planned) -> Option<&Around> {
        let folder = self.paths.parent(planned.path)?;
        self.around.get(&folder)?.as_ref()
    }

    /// Whether a folder is as it would be if it were made now. A folder that passes anything on to
    /// new objects never is: those that are made in it would differ from the ones of a new folder.
    fn is_same_folder(&self, planned: &Planned, handles: &mut Handles) -> io::Result<bool> {
        let Some(around) = self.inherited(planned) else {
            return Ok(false);
        };
        if around.sets_group || around.has_default_acl {
            return Ok(false);
        }
        let access = self.decision.access(planned);
        if access.acl.as_ref().is_some_and(|acl| acl.default.is_some()) {
            return Ok(false);
        }
        let path = self.paths.path(planned.path);
        let (parent, name) = handles.parent(&path)?;
        let folder = parent.folder(name)?;
        let stat = rustix::fs::fstat(&folder)?;
        let wished = access.exactly(self.host.folder_mode, self.host.user);
        Ok(stat.st_mode & SET_GROUP_ID == 0
            && has_access(&stat, &wished)
            && self.has_attributes(&folder, planned, &wished, around)?)
    }

    fn same_file(&self, planned: &Planned, handles: &mut Handles) -> io::Result<Option<Verified>> {
        let Some(around) = self.inherited(planned) else {
            return Ok(None);
        };
        let access = self.decision.access(planned);
        // A new file would inherit a list.
        if around.has_default_acl && access.acl.is_none() {
            return Ok(None);
        }
        let path = self.paths.path(planned.path);
        let (folder, name) = handles.parent(&path)?;
        let file = folder.file_unnoticed(name)?;
        let stat = rustix::fs::fstat(&file)?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let wished = access.exactly(0, self.host.user);
        let alike = FileType::from_raw_mode(stat.st_mode).is_file()
            // Somebody else may rely on the other name.
            && stat.st_nlink == 1
            // Nobody else may change its times.
            && [stat.st_uid, 0].contains(&self.host.user.0)
            && size == self.revision.object(planned.source).size
            && has_access(&stat, &wished)
            && self.has_attributes(&file, planned, &wished, around)?;
        if !alike {
            return Ok(None);
        }
        let status = Status::of(&file)?;
        if !settled(status.changed) {
            return Ok(None);
        }
        let source = self.revision.absolute(planned.source);
        let (from, source) = handles.parent(&source)?;
        let source = from.file_unnoticed(source)?;
        let Some(sum) = compare(&file, &source)? else {
            return Ok(None);
        };
        if Status::of(&file)? != status {
            return Ok(None);
        }
        let planned = Status::of(&source)?.modified;
        let modified = (planned != status.modified).then_some(planned);
        Ok(Some(Verified::of(&status, sum, modified)))
    }

    /// Whether an object has exactly the extended attributes that a new one would have.
    fn has_attributes(
        &self,
        object: impl AsFd,
        planned: &Planned,
        wished: &Access,
        around: &Around,
    ) -> io::Result<bool> {
        let mut names = [0; MAX_ATTRIBUTES];
        let length = match rustix::fs::flistxattr(&object, &mut names[..]) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(error.into()),
        };
        let names = names[..length]
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty());
        let (mut list, mut label) = (None, None);
        for name in names {
            if name == ACCESS_ACL.as_bytes() {
                list = access::attribute(&object, ACCESS_ACL)?;
            } else if name == LABEL.as_bytes() {
                label = access::attribute(&object, LABEL)?;
            } else {
                return Ok(false);
            }
        }
        let wished = wished.acl.as_ref().and_then(|acl| acl.access.as_ref());
        Ok(list.as_ref() == wished
            && label.is_none_or(|label| match self.contexts.get(&planned.path) {
                Some(kind) => kind_of(&label) == Some(kind.as_bytes()),
                None => kind_of(&label) == around.label.as_deref().and_then(kind_of),
            }))
    }
}

fn has_access(stat: &Stat, wished: &Access) -> bool {
    let is = |wish: Option<access::Wish>, found| wish.is_none_or(|wish| wish.value == found);
    is(wished.owner, stat.st_uid)
        && is(wished.group, stat.st_gid)
        && is(wished.mode, stat.st_mode & 0o7777)
}

/// The type in an SELinux label.
fn kind_of(label: &[u8]) -> Option<&[u8]> {
    label.split(|byte| *byte == b':').nth(2)
}

/// Whether every later change will have another time than `changed`; waits for the clock's next
/// step.
#[allow(
    clippy::disallowed_methods,
    reason = "this thread has nothing else to do, and the time is that of a step of the clock"
)]
fn settled(changed: i64) -> bool {
    let is_past = || {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i128::from(changed) < now.saturating_sub(STEP).as_nanos().cast_signed()
    };
    is_past() || {
        std::thread::sleep(STEP);
        is_past()
    }
}

thread_local! {
    static BUFFERS: RefCell<[Vec<u8>; 2]> = RefCell::new([vec![0; AT_ONCE], vec![0; AT_ONCE]]);
}

/// Returns the checksum of the content that both files have; `None` if they differ.
fn compare(mut one: &File, mut other: &File) -> io::Result<Option<u32>> {
    BUFFERS.with_borrow_mut(|[first, second]| {
        let mut sum = crc32fast::Hasher::new();
        loop {
            let length = fill(&mut one, first)?;
            if fill(&mut other, second)? != length || first[..length] != second[..length] {
                return Ok(None);
            }
            sum.update(&first[..length]);
            if length < AT_ONCE {
                return Ok(Some(sum.finalize()));
            }
        }
    })
}

/// Returns the checksum of a file's content.
pub(super) fn checksum(mut file: &File) -> io::Result<u32> {
    BUFFERS.with_borrow_mut(|[buffer, _]| {
        let mut sum = crc32fast::Hasher::new();
        loop {
            let length = fill(&mut file, buffer)?;
            sum.update(&buffer[..length]);
            if length < AT_ONCE {
                return Ok(sum.finalize());
            }
        }
    })
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
