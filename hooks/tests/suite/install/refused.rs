//! Plans that cannot succeed: all conflicts at once, and no change.

use codedeploy_hooks::appspec::{
    Acl, AclEntry, AclTag, Mode, NamePattern, Pattern, Principal, SelinuxContext,
};
use codedeploy_hooks::install::{Conflict, InstallError};

use super::bed::{Bed, conflicts, link, write};

#[test]
fn every_conflict_is_listed_at_once_and_nothing_changes() {
    let bed = Bed::new();
    bed.revision(&[("old", "0")]);
    bed.install_all("app").unwrap();
    bed.revision(&[
        ("a", "1"),
        ("b", "1"),
        ("dir/x", "1"),
        ("folder", "1"),
        ("other/a", "2"),
    ]);
    link("a", &bed.archive("link"));
    nix::unistd::mkfifo(&bed.archive("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    write(&bed.host("app/a"), "operator's");
    write(&bed.host("app/dir"), "a file");
    write(&bed.host("app/folder/y"), "in a folder");
    write(&bed.host("file"), "");
    let mut appspec = bed.appspec(&[
        ("/", "app"),
        ("missing", "app"),
        ("other/a", "app/other"),
        ("b", "file/below"),
    ]);
    let archive = bed.archive("inside");
    appspec.files.push(codedeploy_hooks::appspec::FileMapping {
        source: codedeploy_hooks::appspec::ArchivePath::new("b").unwrap(),
        destination: codedeploy_hooks::appspec::HostPath::new(archive.to_str().unwrap()).unwrap(),
    });
    let mut unknown = bed.permission("app/other/a");
    unknown.owner = Some(Principal::Name("no-such-user".into()));
    unknown.group = Some(Principal::Name("no-such-group".into()));
    let mut again = bed.permission("app/other");
    again.mode = Mode::new(0o600);
    let mut patterned = bed.permission("app/b");
    patterned.pattern = Pattern::Name(NamePattern::new("*"));
    let mut inherited = bed.permission("app/old-b");
    inherited.object = bed.host_path("file");
    inherited.acl = Some(Acl {
        entries: vec![AclEntry {
            default: true,
            tag: AclTag::Owner,
            perms: 6,
        }],
    });
    let mut labelled = bed.permission("app/nothing");
    labelled.context = Some(SelinuxContext {
        user: None,
        kind: "t".into(),
        range: None,
    });
    let linked = bed.permission("app/link");
    appspec.permissions = vec![unknown, again, patterned, inherited, labelled, linked];
    let before = bed.tree();
    let found: Vec<String> = conflicts(bed.install(&appspec))
        .iter()
        .map(|conflict| {
            conflict
                .to_string()
                .replace(bed.root.path().to_str().unwrap(), "")
        })
        .collect();
    let expected = [
        "fifo is a device",
        "the revision has no missing",
        "/host/app/a: a file is there already",
        "/host/app/dir: not a folder",
        "/host/app/folder: a folder is there",
        "/host/app/other/a: two entries of the revision go there, other/a and other/a",
        "/host/file: not a folder",
        "/archive/inside: inside the revision itself",
        "no user \"no-such-user\"",
        "no group \"no-such-group\"",
        "/host/app/other/a: two entries of permissions",
        "/host/app/b is a file: pattern must be",
        "/host/file: is a file, which cannot have default ACL",
        "/host/app/link is a symbolic link",
    ];
    let selinux = std::path::Path::new("/usr/sbin/semanage").exists();
    for expected in expected
        .into_iter()
        .chain((!selinux).then_some("semanage and restorecon are not installed"))
    {
        assert!(
            found.iter().any(|conflict| conflict.contains(expected)),
            "{expected:?} is not among {found:#?}"
        );
    }
    assert_eq!(
        found.len(),
        expected.len() + usize::from(!selinux),
        "{found:#?}"
    );
    assert_eq!(bed.tree(), before);
}

#[test]
fn a_name_that_the_records_cannot_hold_is_refused() {
    let bed = Bed::new();
    bed.revision(&[("a\nb", "1")]);
    assert!(
        conflicts(bed.install_all("app"))[0]
            .to_string()
            .contains("line break")
    );
}

#[test]
fn a_missing_revision_is_an_error_with_its_path() {
    let bed = Bed::new();
    std::fs::remove_dir_all(bed.archive("")).unwrap();
    let error = bed.plan(&bed.all_to("app")).unwrap_err();
    assert!(
        matches!(&error, InstallError::Unreadable { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("archive"), "{error}");
}

#[test]
fn an_acl_that_names_one_user_twice_is_refused() {
    let bed = Bed::new();
    bed.revision(&[("a", "1")]);
    let mut appspec = bed.all_to("app");
    let entry = |user| AclEntry {
        default: false,
        tag: AclTag::User(user),
        perms: 4,
    };
    let mut permission = bed.permission("app");
    permission.acl = Some(Acl {
        entries: vec![
            entry(Principal::Id(0)),
            entry(Principal::Name("root".into())),
        ],
    });
    appspec.permissions = vec![permission];
    assert!(
        conflicts(bed.install(&appspec))[0]
            .to_string()
            .contains("twice")
    );
}

#[test]
fn an_unconfined_context_is_refused_where_the_host_says_so() {
    let mut bed = Bed::new();
    bed.revision(&[("a", "1")]);
    let mut appspec = bed.appspec(&[("a", "app")]);
    let mut labelled = bed.permission("app/a");
    let (user, kind) = (
        Some("unconfined_u".to_owned()),
        "unconfined_exec_t".to_owned(),
    );
    labelled.context = Some(SelinuxContext {
        user,
        kind,
        range: None,
    });
    appspec.permissions = vec![labelled];
    let refused = |bed: &Bed| match bed.plan(&appspec) {
        Err(InstallError::Conflicts(conflicts)) => conflicts
            .iter()
            .filter(|conflict| matches!(conflict, Conflict::Unconfined { .. }))
            .count(),
        // On hosts with SELinux tools.
        Ok(_) => 0,
        Err(other) => panic!("{other}"),
    };
    assert_eq!(refused(&bed), 0);
    bed.reject_unconfined = true;
    assert_eq!(refused(&bed), 2);
}
