//! Observations from a shell in a world: files, access control lists, processes, HTTP responses.

use serde_json::Value;

use super::world::World;

/// Modes, owners, groups and paths of everything below `folder`, sorted by path.
pub(crate) fn listing(world: &mut World, folder: &str) -> Vec<String> {
    let listed = world.say(&format!(
        "find {folder} -mindepth 1 -printf '%m %u %g %P\\n' | sort -k 4"
    ));
    listed.lines().map(str::to_owned).collect()
}

/// The access control list of `path`, one entry a line.
pub(crate) fn acl(world: &mut World, path: &str) -> String {
    world.say(&format!(
        "getfacl --absolute-names --omit-header --no-effective {path}"
    ))
}

/// The user of each process that runs `program`, a path.
pub(crate) fn running(world: &mut World, program: &str) -> Vec<String> {
    // The brackets keep pgrep from finding itself.
    let pattern = program.replace('.', "[.]");
    let users = world.say(&format!(
        "for file in $(grep -las '{pattern}' /proc/[0-9]*/cmdline); do stat -c %U ${{file%/cmdline}}; done"
    ));
    users.lines().map(str::to_owned).collect()
}

/// The JSON response to a GET of `url`.
pub(crate) fn get(world: &mut World, url: &str) -> Value {
    answer(world, url, "")
}

/// The JSON response to a POST of `body` to `url`.
pub(crate) fn post(world: &mut World, url: &str, body: &Value) -> Value {
    answer(world, url, &format!("'{body}'"))
}

fn answer(world: &mut World, url: &str, body: &str) -> Value {
    let text = world.say(&format!("python3 /mnt/ask.py {url} {body}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url}: {error}: {text}"))
}
