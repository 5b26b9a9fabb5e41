//! The variables that `pam_env` sets for every user of this host, read without PAM.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::script::process::executable::read_up_to;

/// In the order of reading; the last one that sets a variable counts.
const FILES: [&str; 2] = ["/etc/environment", "/etc/default/locale"];

/// The number of bytes that are read of a file.
const MAX_FILE: u64 = 1024 * 1024;

pub(super) fn environment() -> Vec<(OsString, OsString)> {
    let mut found: Vec<(OsString, OsString)> = Vec::new();
    for file in FILES {
        // A host without the file has no such variables.
        let text = read_up_to(file.as_ref(), MAX_FILE).unwrap_or_default();
        for (name, value) in variables(&text) {
            found.retain(|(known, _)| *known != name);
            found.push((name, value));
        }
    }
    found
}

/// The `NAME=value` lines of a file. `export` before a name and quotes around a value are removed;
/// a line that ends in a backslash continues in the next one (pam_env(8)).
fn variables(text: &[u8]) -> Vec<(OsString, OsString)> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut goes_on = false;
    for line in text.split(|byte| *byte == b'\n') {
        let (line, continued) = match line.strip_suffix(b"\\") {
            Some(line) => (line, true),
            None => (line, false),
        };
        match lines.last_mut().filter(|_| goes_on) {
            Some(last) => last.extend_from_slice(line),
            None => lines.push(line.to_vec()),
        }
        goes_on = continued;
    }
    lines.iter().filter_map(|line| variable(line)).collect()
}

fn variable(line: &[u8]) -> Option<(OsString, OsString)> {
    let line = line.trim_ascii();
    let line = line.strip_prefix(b"export ").unwrap_or(line).trim_ascii();
    // A comment may follow a value, too.
    let end = line
        .iter()
        .position(|byte| *byte == b'#')
        .unwrap_or(line.len());
    let line = line[..end].trim_ascii();
    let (name, value) = line.split_at(line.iter().position(|byte| *byte == b'=')?);
    let mut value = &value[1..];
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if name.is_empty() || value.contains(&0) || !name.iter().all(is_name) {
        return None;
    }
    if let Some(quote) = value.first().filter(|byte| matches!(byte, b'"' | b'\'')) {
        value = value[1..].strip_suffix(&[*quote]).unwrap_or(&value[1..]);
    }
    Some((
        OsString::from_vec(name.to_vec()),
        OsString::from_vec(value.to_vec()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_pam_env_reads_them() {
        let text = b"# hosts\nAPP_ENV=production\nexport LANG=\"ko_KR.UTF-8\"\n  A = b \nEMPTY=\nP='x y' # why\nno line\n\
            LONG=one\\\ntwo\nBAD NAME=1\n=2\nURL=http://x/?a=b\n";
        let found: Vec<(String, String)> = variables(text)
            .into_iter()
            .map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap()))
            .collect();
        let expected = [
            ("APP_ENV", "production"),
            ("LANG", "ko_KR.UTF-8"),
            ("EMPTY", ""),
            ("P", "x y"),
            ("LONG", "onetwo"),
            ("URL", "http://x/?a=b"),
        ];
        assert_eq!(
            found,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
