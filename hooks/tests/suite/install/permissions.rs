//! The `permissions` section: its objects, and their access.

use std::path::Path;

use codedeploy_hooks::appspec::{
    Acl, AclEntry, AclTag, AppliesTo, Mode, NamePattern, Pattern, Principal,
};

use super::bed::{Bed, chmod, link, mode, owner, write};

#[test]
fn a_pattern_means_everything_below_or_direct_children_by_name() {
    let bed = Bed::new();
    bed.revision(&[
        ("a.sh", ""),
        ("b.txt", ""),
        ("sub/c.sh", ""),
        ("sub/d.txt", ""),
        ("keep.tmp", ""),
    ]);
    for path in ["a.sh", "b.txt", "sub/c.sh", "sub/d.txt", "keep.tmp"] {
        chmod(&bed.archive(path), 0o644);
    }
    write(&bed.host("app/of-operator"), "");
    chmod(&bed.host("app/of-operator"), 0o644);
    let mut named = bed.permission("app");
    named.pattern = Pattern::Name(NamePattern::new("*.sh"));
    named.mode = Mode::new(0o750);
    let mut below = bed.permission("app/sub");
    below.mode = Mode::new(0o600);
    below.except = vec![NamePattern::new("*.txt")];
    let mut folders = bed.permission("app");
    folders.applies_to = AppliesTo {
        files: false,
        directories: true,
    };
    folders.mode = Mode::new(0o711);
    let mut appspec = bed.all_to("app");
    appspec.permissions = vec![named, below, folders];
    let summary = bed.install(&appspec).unwrap();
    let modes = [
        "app/a.sh",
        "app/b.txt",
        "app/sub",
        "app/sub/c.sh",
        "app/sub/d.txt",
        "app/keep.tmp",
        "app/of-operator",
    ]
    .map(|path| mode(&bed.host(path)));
    assert_eq!(
        modes,
        [0o750, 0o644, 0o711, 0o600, 0o644, 0o644, 0o644].map(|mode: u32| mode)
    );
    assert_eq!(summary.warnings, [] as [&str; 0]);
}

#[test]
fn an_object_that_is_not_installed_gets_a_warning_and_an_existing_file_gets_its_mode() {
    let bed = Bed::new();
    bed.revision(&[("a", "")]);
    write(&bed.host("etc/config"), "operator's");
    write(&bed.host("etc/other"), "operator's");
    let before = mode(&bed.host("etc/other"));
    let mut exact = bed.permission("etc/config");
    exact.mode = Mode::new(0o604);
    let mut folder = bed.permission("etc");
    folder.mode = Mode::new(0o600);
    let mut appspec = bed.all_to("app");
    appspec.permissions = vec![exact, folder, bed.permission("nowhere")];
    let plan = bed.plan(&appspec).unwrap();
    assert_eq!(plan.warnings().len(), 2, "{:?}", plan.warnings());
    bed.install(&appspec).unwrap();
    assert_eq!(
        (mode(&bed.host("etc/config")), mode(&bed.host("etc/other"))),
        (0o604, before)
    );
}

#[test]
fn folders_that_forbid_writing_can_be_filled_and_removed() {
    let bed = Bed::new();
    bed.revision(&[("sub/deep/x", "1")]);
    let mut appspec = bed.all_to("app");
    let mut permission = bed.permission("app");
    permission.mode = Mode::new(0o555);
    appspec.permissions = vec![permission];
    bed.install(&appspec).unwrap();
    assert_eq!(
        ["app/sub", "app/sub/deep", "app/sub/deep/x"].map(|path| mode(&bed.host(path))),
        [0o555; 3]
    );
    bed.revision(&[("sub", "a file now")]);
    let summary = bed.install_all("app").unwrap();
    assert_eq!(bed.listing(), ["app/", "app/sub a file now"]);
    assert_eq!(summary.warnings, [] as [&str; 0]);
}

#[test]
fn permissions_do_not_follow_links() {
    let bed = Bed::new();
    write(&bed.host("precious"), "");
    chmod(&bed.host("precious"), 0o640);
    bed.revision(&[("a", "")]);
    link(bed.host("precious").to_str().unwrap(), &bed.archive("link"));
    let mut appspec = bed.all_to("app");
    let mut permission = bed.permission("app");
    permission.mode = Mode::new(0o777);
    if nix::unistd::geteuid().is_root() {
        permission.owner = Some(Principal::Id(4321));
    }
    appspec.permissions = vec![permission];
    let before = owner(&bed.host("precious"));
    bed.install(&appspec).unwrap();
    assert_eq!(
        (mode(&bed.host("precious")), owner(&bed.host("precious"))),
        (0o640, before)
    );
    if nix::unistd::geteuid().is_root() {
        assert_eq!(owner(&bed.host("app/link")).0, 4321);
    }
}

#[test]
#[ignore = "needs root"]
fn set_id_bits_survive_a_new_owner_which_needs_root() {
    let bed = Bed::new();
    bed.revision(&[("tool", ""), ("plain", "")]);
    chmod(&bed.archive("plain"), 0o4755);
    write(&bed.host("there"), "");
    chmod(&bed.host("there"), 0o6755);
    let mut appspec = bed.all_to("app");
    let mut tool = bed.permission("app/tool");
    (tool.owner, tool.group) = (
        Some(Principal::Id(4321)),
        Some(Principal::Name("daemon".into())),
    );
    tool.mode = Mode::new(0o6755);
    let mut there = bed.permission("there");
    there.owner = Some(Principal::Id(4321));
    appspec.permissions = vec![tool, there];
    bed.install(&appspec).unwrap();
    let daemon = nix::unistd::Group::from_name("daemon")
        .unwrap()
        .unwrap()
        .gid
        .as_raw();
    assert_eq!(
        (mode(&bed.host("app/tool")), owner(&bed.host("app/tool"))),
        (0o6755, (4321, daemon))
    );
    assert_eq!(mode(&bed.host("app/plain")), 0o4755);
    assert_eq!(
        (mode(&bed.host("there")), owner(&bed.host("there")).0),
        (0o6755, 4321)
    );
}

fn entry(default: bool, tag: AclTag, perms: u8) -> AclEntry {
    AclEntry {
        default,
        tag,
        perms,
    }
}

#[test]
fn an_acl_is_completed_from_the_mode_and_read_by_getfacl() {
    let bed = Bed::new();
    bed.revision(&[("sub/file", "")]);
    chmod(&bed.archive("sub/file"), 0o640);
    let mut appspec = bed.all_to("app");
    let mut file = bed.permission("app/sub/file");
    file.acl = Some(Acl {
        entries: vec![
            entry(false, AclTag::User(Principal::Id(77)), 6),
            entry(false, AclTag::Group(Principal::Name("root".into())), 1),
        ],
    });
    let mut folder = bed.permission("app");
    folder.applies_to = AppliesTo {
        files: false,
        directories: true,
    };
    folder.acl = Some(Acl {
        entries: vec![
            entry(false, AclTag::Mask, 7),
            entry(true, AclTag::User(Principal::Id(88)), 7),
            entry(true, AclTag::Other, 0),
        ],
    });
    appspec.permissions = vec![file, folder];
    bed.install(&appspec).unwrap();
    let no_one = [0xff; 4];
    let item = |tag: u8, perms: u8, id: [u8; 4]| [[tag, 0, perms, 0], id].concat();
    let version = vec![2, 0, 0, 0];
    let expected = [
        version.clone(),
        item(0x01, 6, no_one),
        item(0x02, 6, [77, 0, 0, 0]),
        item(0x04, 4, no_one),
        item(0x08, 1, [0; 4]),
        item(0x10, 4, no_one),
        item(0x20, 0, no_one),
    ];
    assert_eq!(
        attribute(&bed.host("app/sub/file"), "system.posix_acl_access"),
        expected.concat()
    );
    let expected = [
        version,
        item(0x01, 7, no_one),
        item(0x02, 7, [88, 0, 0, 0]),
        item(0x04, 5, no_one),
        item(0x10, 5, no_one),
        item(0x20, 0, no_one),
    ];
    assert_eq!(
        attribute(&bed.host("app/sub"), "system.posix_acl_default"),
        expected.concat()
    );
    let text = getfacl(&bed.host("app/sub/file"));
    assert_eq!(
        text,
        "user::rw-\nuser:77:rw-\ngroup::r--\ngroup:0:--x\nmask::r--\nother::---\n"
    );
    let expected = "user::rwx\ngroup::r-x\nmask::rwx\nother::r-x\ndefault:user::rwx\ndefault:user:88:rwx\ndefault:group::r-x\ndefault:mask::r-x\ndefault:other::---\n";
    assert_eq!(getfacl(&bed.host("app/sub")), expected);
}

fn attribute(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 1024];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(length);
    value
}

#[allow(
    clippy::disallowed_methods,
    reason = "the oracle of this test is a tool of the system"
)]
fn getfacl(path: &Path) -> String {
    let mut command = std::process::Command::new("getfacl");
    let output = command
        .args([
            "--numeric",
            "--omit-header",
            "--absolute-names",
            "--no-effective",
        ])
        .arg(path)
        .output();
    String::from_utf8(output.unwrap().stdout)
        .unwrap()
        .replace("\n\n", "\n")
}

#[test]
fn a_mode_that_is_asked_for_keeps_its_set_id_bits_whoever_copies() {
    let bed = Bed::new();
    bed.revision(&[("a", "")]);
    let mut appspec = bed.all_to("app");
    let mut permission = bed.permission("app");
    permission.mode = Mode::new(0o4755);
    permission.applies_to.directories = false;
    appspec.permissions = vec![permission];
    bed.install(&appspec).unwrap();
    assert_eq!(mode(&bed.host("app/a")), 0o4755);
}

#[test]
fn a_new_folder_inherits_what_its_parent_hands_down() {
    let bed = Bed::new();
    std::fs::create_dir(bed.host("shared")).unwrap();
    chmod(&bed.host("shared"), 0o2775);
    bed.revision(&[("sub/x", "")]);
    bed.install_all("shared").unwrap();
    assert_eq!(mode(&bed.host("shared/sub")), 0o2755);
    assert_eq!(
        owner(&bed.host("shared/sub")).1,
        owner(&bed.host("shared")).1
    );
}
