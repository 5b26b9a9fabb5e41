//! Destinations of files.

use super::case::{Case, PLAIN};

pub(crate) const FILES: &[Case] = &[
    Case {
        name: "a file goes into the destination, a folder's contents do, and missing parents are made",
        appspec: "files:\n- {source: f, destination: @/a/b}\n- {source: /d, destination: @/c/}\n",
        host: &[
            "a/ 0755",
            "a/b/ 0755",
            r#"a/b/f 0644 "new""#,
            "c/ 0755",
            "c/e/ 0755",
            r#"c/e/h 0644 "deeper""#,
            r#"c/g 0644 "deep""#,
        ],
        ..PLAIN
    },
    Case {
        name: "a slash is all of the revision, the AppSpec file too",
        bundle: &[("f", "new")],
        appspec: "files: [{source: /, destination: @/app}]\n",
        host: &[
            "app/ 0755",
            r#"app/appspec.yml 0644 "version: 0.0\nos: linux\nfiles: [{source: /, destination: @/app}]\n""#,
            r#"app/f 0644 "new""#,
        ],
        ..PLAIN
    },
    Case {
        name: "mappings meet in one folder",
        appspec: "files:\n- {source: d/e, destination: @/app}\n- {source: f, destination: @/app/e}\n- {source: d/g, destination: @/app/e}\n",
        host: &[
            "app/ 0755",
            "app/e/ 0755",
            r#"app/e/f 0644 "new""#,
            r#"app/e/g 0644 "deep""#,
            r#"app/h 0644 "deeper""#,
        ],
        ..PLAIN
    },
    Case {
        name: "two entries for one destination, whatever the file exists behavior",
        appspec: "files:\n- {source: d, destination: @/app}\n- {source: d/e, destination: @/app/e}\n",
        options: &["-b", "OVERWRITE"],
        failure: "app/e/h: two entries of the revision go there",
        ..PLAIN
    },
    Case {
        name: "a file and a folder for one destination",
        bundle: &[("x/app", "a file"), ("d/g", "deep")],
        appspec: "files:\n- {source: x, destination: @}\n- {source: d, destination: @/app}\n",
        failure: "app: not a folder",
        ..PLAIN
    },
    Case {
        name: "a source that is not there",
        appspec: "files: [{source: nothing, destination: @/app}]\n",
        failure: "the revision has no nothing",
        ..PLAIN
    },
    Case {
        name: "an existing file is refused by default, and nothing has changed",
        appspec: "files: [{source: d, destination: @/app}]\n",
        before: &[("app/g", "old")],
        failure: "app/g: a file is there already",
        host: &["app/ 0755", r#"app/g 0644 "old""#],
        ..PLAIN
    },
    Case {
        name: "OVERWRITE replaces it",
        appspec: "files: [{source: d, destination: @/app}]\n",
        before: &[("app/g", "old"), ("app/mine", "stays")],
        options: &["-b", "OVERWRITE"],
        host: &[
            "app/ 0755",
            "app/e/ 0755",
            r#"app/e/h 0644 "deeper""#,
            r#"app/g 0644 "deep""#,
            r#"app/mine 0644 "stays""#,
        ],
        ..PLAIN
    },
    Case {
        name: "RETAIN keeps it, and its permissions",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app, mode: 600, type: [file]}]\n",
        before: &[("app/g", "old")],
        options: &["-b", "retain"],
        host: &[
            "app/ 0755",
            "app/e/ 0755",
            r#"app/e/h 0600 "deeper""#,
            r#"app/g 0644 "old""#,
        ],
        ..PLAIN
    },
    Case {
        name: "RETAIN keeps a folder in a file's place",
        appspec: "files: [{source: d, destination: @/app}]\n",
        before: &[("app/g/mine", "old")],
        options: &["-b", "RETAIN"],
        host: &[
            "app/ 0755",
            "app/e/ 0755",
            r#"app/e/h 0644 "deeper""#,
            "app/g/ 0755",
            r#"app/g/mine 0644 "old""#,
        ],
        ..PLAIN
    },
    Case {
        name: "OVERWRITE does not replace a folder",
        appspec: "files: [{source: d, destination: @/app}]\n",
        before: &[("app/g/mine", "old")],
        options: &["-b", "OVERWRITE"],
        failure: "app/g: a folder is there",
        host: &["app/ 0755", "app/g/ 0755", r#"app/g/mine 0644 "old""#],
        ..PLAIN
    },
    Case {
        name: "a file where a folder must go, even with RETAIN",
        appspec: "files: [{source: d, destination: @/app}]\n",
        before: &[("app", "a file")],
        options: &["-b", "RETAIN"],
        failure: "app: not a folder",
        host: &[r#"app 0644 "a file""#],
        ..PLAIN
    },
    Case {
        name: "the AppSpec's behavior wins over the deployment's",
        appspec: "file_exists_behavior: overwrite\nfiles: [{source: f, destination: @}]\n",
        before: &[("f", "old")],
        host: &[r#"f 0644 "new""#],
        ..PLAIN
    },
    Case {
        name: "a link to a file is copied as a link, whether or not its target exists",
        bundle: &[
            ("d/g", "deep"),
            ("d/l", "->g"),
            ("d/m", "->/nowhere/at all"),
        ],
        appspec: "files: [{source: d, destination: @/app}]\n",
        host: &[
            "app/ 0755",
            r#"app/g 0644 "deep""#,
            "app/l -> g",
            "app/m -> /nowhere/at all",
        ],
        ..PLAIN
    },
    Case {
        name: "a destination behind an operator's link",
        appspec: "files: [{source: f, destination: @/current/app}]\n",
        before: &[("real/", ""), ("current", "->real")],
        host: &[
            "current -> real",
            "real/ 0755",
            "real/app/ 0755",
            r#"real/app/f 0644 "new""#,
        ],
        ..PLAIN
    },
    Case {
        name: "names with spaces, quotes and letters of any alphabet",
        bundle: &[("my files/it's a \"ünïcode\" $(name)", "x")],
        appspec: "files: [{source: my files, destination: \"@/my app\"}]\n",
        host: &[
            "my app/ 0755",
            "my app/it's a \"ünïcode\" $(name) 0644 \"x\"",
        ],
        ..PLAIN
    },
    Case {
        name: "paths with .. that stay inside, and an empty source, which is everything",
        bundle: &[("d/g", "deep"), ("d/e/h", "deeper")],
        appspec: "files:\n- {source: d/e/.., destination: @/x/../app}\n- {source: \"\", destination: @/all}\nfile_exists_behavior: OVERWRITE\n",
        host: &[
            "all/ 0755",
            r#"all/appspec.yml 0644 "version: 0.0\nos: linux\nfiles:\n- {source: d/e/.., destination: @/x/../app}\n- {source: \"\", destination: @/all}\nfile_exists_behavior: OVERWRITE\n""#,
            "all/d/ 0755",
            "all/d/e/ 0755",
            r#"all/d/e/h 0644 "deeper""#,
            r#"all/d/g 0644 "deep""#,
            "app/ 0755",
            "app/e/ 0755",
            r#"app/e/h 0644 "deeper""#,
            r#"app/g 0644 "deep""#,
        ],
        ..PLAIN
    },
    Case {
        name: "a source with a wildcard",
        appspec: "files: [{source: d/*, destination: @/app}]\n",
        failure: "the revision has no d/*; a source has no wildcards: name one file, or the folder that holds it (such as \"d/e\")",
        ..PLAIN
    },
    Case {
        name: "a source with a misspelt name",
        appspec: "files: [{source: d/E, destination: @/app}]\n",
        failure: "the revision has no d/E; did you mean \"d/e\"?",
        ..PLAIN
    },
    // AWS's agents resolve it against their current folder.
    Case {
        name: "a relative destination is refused",
        appspec: "files: [{source: f, destination: app}]\n",
        failure: "files[0].destination: found \"app\", which is not absolute; write the whole path on the host (\"/app\",",
        ..PLAIN
    },
    // AWS's agents copy the target, wherever it is.
    Case {
        name: "a source outside the revision is refused",
        appspec: "files: [{source: ../../../f, destination: @/app}]\n",
        failure: "files[0].source",
        ..PLAIN
    },
];
