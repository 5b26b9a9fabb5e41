//! A folder as text, for comparing whole trees at once.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// One line per path below `folder`, sorted: kind, mode, owner, name, and content or target.
pub fn listing(folder: &Path) -> String {
    let mut lines = Vec::new();
    collect(folder, folder, &mut lines);
    lines.sort();
    lines.join("\n")
}

fn collect(root: &Path, folder: &Path, lines: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let metadata = fs::symlink_metadata(&path).expect("it was listed");
        let name = path.strip_prefix(root).expect("below the root").display().to_string();
        let mode = metadata.permissions().mode() & 0o7777;
        let owner = format!("{}:{}", metadata.uid(), metadata.gid());
        if metadata.is_symlink() {
            lines.push(format!("{name} -> {}", fs::read_link(&path).expect("a link").display()));
        } else if metadata.is_dir() {
            lines.push(format!("{name}/ {mode:04o} {owner}"));
            collect(root, &path, lines);
        } else {
            let content = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
            lines.push(format!("{name} {mode:04o} {owner} {content:?}"));
        }
    }
}
