//! The contents of the revisions, and the files and actions of an operator on the host.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use nix::unistd::{Uid, User, geteuid};

use super::{HOOKS, Pair, Revision};
use crate::bundle;

impl Pair {
    pub(super) fn write_old(&self) {
        let folder = self.place.join("old");
        let appspec = self.appspec("700", "u:daemon:r");
        bundle::write(&folder, &[("appspec.yml", &appspec)]);
        let files = [
            ("app/same.txt", "same"),
            ("app/changed.txt", "old"),
            ("app/removed.txt", "old"),
            ("app/empty", ""),
            ("app/name with space.txt", "old"),
            ("app/ümlaut.txt", "old"),
            ("app/bin/run.sh", "#!/bin/sh\necho old\n"),
            ("app/gone/deep/file", "old"),
            ("app/gone/beside", "old"),
            ("app/emptied/file", "old"),
            ("app/becomes-folder", "old"),
            ("app/becomes-file/inner", "old"),
            ("app/becomes-link", "old"),
            ("app/locked/file", "old"),
            ("site/site.conf", "old"),
            ("shared/app.list", "old"),
            ("app/steady/same", "same"),
            ("app/steady/deep/same", "same"),
            ("app/steady/changed", "old"),
            ("app/steady/gone", "old"),
            ("fresh/file", "old"),
        ];
        bundle::write(&folder, &files);
        links(
            &folder,
            &[
                ("app/becomes-plain", "same.txt"),
                ("app/link", "same.txt"),
                ("app/dangling", "/nowhere/old"),
            ],
        );
        self.pack(&folder);
    }

    pub(super) fn write_new(&self) {
        let folder = self.place.join("new");
        let mut appspec =
            self.appspec("750", "u:daemon:rw") + &self.extra_permissions() + "hooks:\n";
        for event in HOOKS {
            appspec += &format!("  {event}: [{{location: note.sh}}]\n");
        }
        let note = format!(
            "#!/bin/sh\necho $LIFECYCLE_EVENT >> {}\n",
            self.ran().display()
        );
        bundle::write(&folder, &[("appspec.yml", &appspec), ("note.sh", &note)]);
        let large = "0123456789abcdef".repeat(5000);
        let files = [
            ("app/same.txt", "same"),
            ("app/changed.txt", "new"),
            ("app/added.txt", "new"),
            ("app/large.txt", &large),
            ("app/empty", ""),
            ("app/name with space.txt", "new"),
            ("app/ümlaut.txt", "new"),
            ("app/bin/run.sh", "#!/bin/sh\necho new\n"),
            ("app/deep/er/and/deeper", "new"),
            ("app/becomes-folder/inner", "new"),
            ("app/becomes-file", "new"),
            ("app/becomes-plain", "new"),
            ("app/operator.conf", "new"),
            ("app/locked/file", "new"),
            ("site/site.conf", "new"),
            ("shared/app.list", "new"),
            ("shared/second.list", "new"),
            ("app/steady/same", "same"),
            ("app/steady/deep/same", "same"),
            ("app/steady/changed", "new"),
            ("app/steady/added", "new"),
            ("fresh/file", "new"),
        ];
        bundle::write(&folder, &files);
        links(
            &folder,
            &[
                ("app/becomes-link", "changed.txt"),
                ("app/link", "added.txt"),
                ("app/dangling", "/nowhere/new"),
            ],
        );
        self.pack(&folder);
    }

    pub(super) fn write_others(&self) {
        let live = self.live().display().to_string();
        let little = format!(
            "version: 0.0\nos: linux\nfile_exists_behavior: OVERWRITE\nfiles:\n  - source: only.txt\n    destination: {live}/srv/little\n"
        );
        bundle::write(
            &self.place.join("little"),
            &[("appspec.yml", &little), ("only.txt", "little")],
        );
        self.pack(&self.place.join("little"));
        let failing =
            "version: 0.0\nos: linux\nhooks:\n  BeforeInstall:\n    - location: on-purpose.sh\n";
        let script = "#!/bin/sh\nexit 1\n";
        bundle::write(
            &self.bundle(Revision::Failing),
            &[("appspec.yml", failing), ("on-purpose.sh", script)],
        );
    }

    fn appspec(&self, mode: &str, acl: &str) -> String {
        let live = self.live().display().to_string();
        let (owner, group) = owner();
        format!(
            "version: 0.0\nos: linux\nfile_exists_behavior: OVERWRITE\nfiles:\n\
             \x20 - {{source: app, destination: {live}/srv/app}}\n\
             \x20 - {{source: site/site.conf, destination: {live}/etc}}\n\
             \x20 - {{source: shared, destination: {live}/srv/shared}}\n\
             \x20 - {{source: fresh, destination: {live}/srv/fresh/in/folders}}\n\
             permissions:\n\
             \x20 - {{object: {live}/srv/app, pattern: '*.txt', except: [same.txt], mode: '{mode}', owner: {owner}, group: {group}, acls: ['{acl}'], type: [file]}}\n\
             \x20 - {{object: {live}/srv/app/bin, mode: '4755', owner: {owner}, group: {group}}}\n\
             \x20 - {{object: {live}/srv/shared, mode: '{mode}', type: [file]}}\n"
        )
    }

    /// A folder with an ACL and a default ACL, and a file of the operator.
    fn extra_permissions(&self) -> String {
        let live = self.live().display().to_string();
        format!(
            "\x20 - {{object: {live}/srv/app/deep, mode: '2770', acls: ['u:daemon:rx', 'd:u:daemon:rw'], type: [directory]}}\n\
             \x20 - {{object: {live}/etc/operator.ini, mode: '600', acls: ['u:daemon:r']}}\n"
        )
    }

    /// Makes a tar beside the folder.
    fn pack(&self, folder: &Path) {
        age(folder);
        fs::write(folder.with_extension("tar"), bundle::tar(folder))
            .expect("the file can be written");
    }

    /// Writes the files that are on the host before the first deployment.
    pub(super) fn write_operators(&self) {
        let files = [
            ("etc/operator.ini", "mine"),
            ("srv/shared/mine.list", "mine"),
            ("srv/keep/mine", "mine"),
        ];
        bundle::write(&self.live(), &files);
        fs::create_dir_all(self.root()).expect("the folder can be made");
    }

    /// Makes an operator's changes after the old revision was installed.
    pub(super) fn change_as_operator(&self) {
        let live = self.live();
        let files = [
            ("srv/app/operator.conf", "mine"),
            ("srv/app/notes", "mine"),
            // These folders cannot be removed.
            ("srv/app/gone/deep/mine", "mine"),
            ("srv/app/locked/mine", "mine"),
        ];
        bundle::write(&live, &files);
        let mode = |name: &str, mode| {
            fs::set_permissions(live.join(name), fs::Permissions::from_mode(mode))
                .expect("the mode can be set");
        };
        mode("srv/app/operator.conf", 0o640);
        mode("srv/app/changed.txt", 0o604);
        mode("srv/app/locked", 0o711);
        fs::hard_link(
            live.join("srv/app/changed.txt"),
            live.join("srv/keep/changed.txt"),
        )
        .expect("a hard link");
        symlink("../app/bin", live.join("srv/keep/bin")).expect("a link");
        age(&live.join("srv/keep"));
    }
}

/// An owner other than the tester, if that is possible.
fn owner() -> (String, String) {
    if geteuid().is_root() {
        return ("daemon".into(), "daemon".into());
    }
    let own = User::from_uid(Uid::effective())
        .expect("users can be asked for")
        .expect("everybody has a name");
    (own.name, own.gid.to_string())
}

fn links(folder: &Path, links: &[(&str, &str)]) {
    for (name, target) in links {
        symlink(target, folder.join(name)).expect("the link can be made");
    }
}

/// Gives every file below `folder` a distinct old time, so that a copy can be told from a new file.
fn age(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let metadata = entry.metadata().expect("it was listed");
        if metadata.is_dir() {
            age(&entry.path());
        } else if metadata.is_file() {
            let seconds = 1_000_000_000 + u64::from(crc(&entry.path())) + metadata.size();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let file = fs::File::options()
                .append(true)
                .open(entry.path())
                .expect("it can be opened");
            file.set_modified(time).expect("the time can be set");
        }
    }
}

/// A small number that depends only on a name.
fn crc(path: &Path) -> u16 {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0_u16, |sum, byte| sum.rotate_left(3) ^ u16::from(*byte))
}
