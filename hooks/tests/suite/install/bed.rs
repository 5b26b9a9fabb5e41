//! A host folder, a revision and a deployment group's records in a temporary folder, with
//! comparison of whole trees.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_hooks::appspec::{
    AppSpec, AppliesTo, ArchivePath, FileMapping, HostPath, Pattern, Permission,
};
use codedeploy_hooks::install::{
    self, Conflict, InstallError, InstallPlan, Records, Recovery, Request, RestoreError, Restored,
    Summary, Turn,
};
use tokio_util::sync::CancellationToken;

pub(crate) struct Bed {
    pub(crate) root: Root,
    pub(crate) records: Records,
    pub(crate) behavior: FileExistsBehavior,
    pub(crate) reject_unconfined: bool,
    /// Folders of the agent.
    pub(crate) reserved: Vec<PathBuf>,
    pub(crate) stop: CancellationToken,
    /// The deployment that is installed.
    pub(crate) deployment: String,
}

/// Everything about one object that an Install could change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) what: What,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// The access and default ACLs in the kernel's form.
    pub(crate) acl: [Vec<u8>; 2],
    /// Seconds and nanoseconds; a folder's time changes with its contents.
    pub(crate) modified: Option<(i64, i64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    File(Vec<u8>),
    Folder,
    Link(PathBuf),
}

pub(crate) type Tree = BTreeMap<PathBuf, Seen>;

/// The folder of a bed, removed with the bed that made it.
pub(crate) enum Root {
    Own(tempfile::TempDir),
    Borrowed(PathBuf),
}

impl Root {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Borrowed(path) => path,
        }
    }
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::make(
            tempfile::Builder::new()
                .prefix("install-")
                .tempdir()
                .unwrap(),
        )
    }

    /// In a place where syncing is free, if this host has one.
    pub(crate) fn in_memory() -> Self {
        let memory = tempfile::Builder::new()
            .prefix("install-")
            .tempdir_in("/dev/shm");
        memory.map_or_else(|_| Self::new(), Self::make)
    }

    fn make(root: tempfile::TempDir) -> Self {
        for folder in ["host", "archive", "records", "deployments/d-1"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        Self::of(Root::Own(root))
    }

    /// The bed that another process made.
    pub(crate) fn at(root: &Path) -> Self {
        Self::of(Root::Borrowed(root.to_path_buf()))
    }

    fn of(root: Root) -> Self {
        let at = |name: &str| root.path().join("records").join(name);
        let records = Records {
            instructions: at("group-install.json"),
            cleanup: at("group-cleanup"),
            pointer: at("group_last_successful_install"),
            journal: at("group-journal.json"),
        };
        let behavior = FileExistsBehavior::Disallow;
        let (reserved, stop) = (Vec::new(), CancellationToken::new());
        Self {
            root,
            records,
            behavior,
            reject_unconfined: false,
            reserved,
            stop,
            deployment: "d-1".into(),
        }
    }

    pub(crate) fn host(&self, below: &str) -> PathBuf {
        self.root.path().join("host").join(below)
    }

    pub(crate) fn archive(&self, below: &str) -> PathBuf {
        self.root.path().join("archive").join(below)
    }

    /// Starts a new revision with these files.
    pub(crate) fn revision(&self, files: &[(&str, &str)]) {
        std::fs::remove_dir_all(self.archive("")).unwrap();
        std::fs::create_dir(self.archive("")).unwrap();
        for (path, text) in files {
            write(&self.archive(path), text);
        }
    }

    pub(crate) fn plan(&self, appspec: &AppSpec) -> Result<InstallPlan, InstallError> {
        let archive = self.archive("");
        install::plan(&Request {
            deployment: &self.deployment(),
            archive: &archive,
            appspec,
            behavior: self.behavior,
            records: &self.records,
            given: None,
            reject_unconfined: self.reject_unconfined,
            reserved: &self.reserved,
            slot: None,
            note: None,
            stop: &self.stop,
        })
    }

    pub(crate) fn install(&self, appspec: &AppSpec) -> Result<Summary, InstallError> {
        let turn = self.turn();
        install::install(self.plan(appspec)?, &turn)
    }

    /// Recovers like a restarted agent.
    pub(crate) fn recover(&self) -> Recovery {
        install::recover(&self.records.journal, &self.turn()).unwrap()
    }

    /// Takes the last Install back.
    pub(crate) fn restore(&self) -> Result<Restored, RestoreError> {
        install::restore(&self.deployment(), &self.records, &self.turn())
    }

    pub(crate) fn turn(&self) -> Turn {
        Turn::wait(&self.root.path().join("records")).unwrap()
    }

    /// The folder of the deployment.
    pub(crate) fn deployment(&self) -> PathBuf {
        self.root.path().join("deployments").join(&self.deployment)
    }

    /// Installs the revision's root into the host folder `destination`.
    pub(crate) fn install_all(&self, destination: &str) -> Result<Summary, InstallError> {
        self.install(&self.all_to(destination))
    }

    pub(crate) fn all_to(&self, destination: &str) -> AppSpec {
        self.appspec(&[("/", destination)])
    }

    pub(crate) fn appspec(&self, files: &[(&str, &str)]) -> AppSpec {
        let mapping = |(source, destination): &(&str, &str)| FileMapping {
            source: ArchivePath::new(source).unwrap(),
            destination: self.host_path(destination),
        };
        AppSpec {
            files: files.iter().map(mapping).collect(),
            file_exists_behavior: None,
            permissions: Vec::new(),
            hooks: Vec::new(),
            unknown_hooks: Vec::new(),
            strategy: None,
        }
    }

    pub(crate) fn host_path(&self, below: &str) -> HostPath {
        HostPath::new(self.host(below).to_str().unwrap()).unwrap()
    }

    /// A permission on everything below `object` without any wish.
    pub(crate) fn permission(&self, object: &str) -> Permission {
        Permission {
            object: self.host_path(object),
            pattern: Pattern::Everything,
            except: Vec::new(),
            owner: None,
            group: None,
            mode: None,
            acl: None,
            context: None,
            applies_to: AppliesTo {
                files: true,
                directories: true,
            },
        }
    }

    /// The whole host folder and the records, without the lock.
    pub(crate) fn tree(&self) -> Tree {
        let mut tree = tree(&self.host(""));
        let records = self::tree(&self.root.path().join("records")).into_iter();
        let records = records.filter(|(path, _)| path != Path::new("install.lock"));
        tree.extend(records.map(|(path, seen)| (Path::new("records").join(path), seen)));
        tree
    }

    /// Paths below the host folder with their contents, in short: a file's text, `/` for a folder,
    /// `-> target`.
    pub(crate) fn listing(&self) -> Vec<String> {
        let line = |(path, seen): (PathBuf, Seen)| match seen.what {
            What::File(bytes) => format!("{} {}", path.display(), String::from_utf8_lossy(&bytes)),
            What::Folder => format!("{}/", path.display()),
            What::Link(target) => format!("{} -> {}", path.display(), target.display()),
        };
        tree(&self.host(""))
            .into_iter()
            .filter(|(path, _)| path != Path::new(""))
            .map(line)
            .collect()
    }

    /// The lines of the cleanup file, relative to the host folder.
    pub(crate) fn cleanup(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.records.cleanup).unwrap();
        let host = self.host("");
        text.lines()
            .map(|line| {
                Path::new(line)
                    .strip_prefix(&host)
                    .unwrap()
                    .display()
                    .to_string()
            })
            .collect()
    }
}

pub(crate) fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

pub(crate) fn link(target: &str, path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

pub(crate) fn owner(path: &Path) -> (u32, u32) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

pub(crate) fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(root, Path::new(""), &mut tree);
    tree
}

fn walk(root: &Path, below: &Path, tree: &mut Tree) {
    let path = if below == Path::new("") {
        root.to_path_buf()
    } else {
        root.join(below)
    };
    let metadata = std::fs::symlink_metadata(&path).unwrap();
    let what = if metadata.is_symlink() {
        What::Link(std::fs::read_link(&path).unwrap())
    } else if metadata.is_dir() {
        for entry in std::fs::read_dir(&path).unwrap() {
            walk(root, &below.join(entry.unwrap().file_name()), tree);
        }
        What::Folder
    } else {
        What::File(std::fs::read(&path).unwrap())
    };
    let modified = (what != What::Folder).then(|| (metadata.mtime(), metadata.mtime_nsec()));
    let owner = (metadata.uid(), metadata.gid());
    let acl = ["system.posix_acl_access", "system.posix_acl_default"].map(|name| {
        let mut value = vec![0; 1024];
        let length = rustix::fs::lgetxattr(&path, name, &mut value[..]).unwrap_or(0);
        value.truncate(length);
        value
    });
    let mode = metadata.mode() & 0o7777;
    tree.insert(
        below.to_path_buf(),
        Seen {
            what,
            mode,
            owner,
            acl,
            modified,
        },
    );
}

/// The conflicts of a rejected Install.
pub(crate) fn conflicts<T: std::fmt::Debug>(result: Result<T, InstallError>) -> Vec<Conflict> {
    match result {
        Err(InstallError::Conflicts(conflicts)) => conflicts,
        other => panic!("expected conflicts, got {other:?}"),
    }
}

/// Whether this test runs as root.
pub(crate) fn root() -> bool {
    nix::unistd::geteuid().is_root()
}
