//! The limits that `pam_limits` sets, read without PAM (limits.conf(5)). Limits on the number of
//! logins do not apply to a script.

use std::path::PathBuf;

use nix::unistd::{Gid, Group};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};

use crate::script::process::executable::read_up_to;
use crate::script::process::order::Switch;

const FILE: &str = "/etc/security/limits.conf";
const FOLDER: &str = "/etc/security/limits.d";

/// The number of bytes that are read of a file.
const MAX_FILE: u64 = 1024 * 1024;

/// The subject of a line; `Everybody` has the lowest priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Everybody,
    Group,
    User,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Limit(Resource),
    /// The nice value of started programs.
    Priority,
}

/// The limits found for one item: soft and hard, each with the rank of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    item: Item,
    soft: Option<(Rank, Amount)>,
    hard: Option<(Rank, Amount)>,
}

/// A limit in the kernel's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amount {
    Unlimited,
    Of(i64),
}

/// The user that the lines are matched against.
struct Owner<'a> {
    name: &'a str,
    uid: u32,
    gids: &'a [u32],
    is_member: &'a dyn Fn(&str) -> bool,
}

/// Sets the limits of `account` for this process; a limit that cannot be set is a warning.
pub(super) fn apply(account: &Switch, warnings: &mut Vec<String>) {
    let is_member = |group: &str| {
        let group = Group::from_name(group).ok().flatten();
        group.is_some_and(|group| {
            account
                .groups
                .iter()
                .any(|gid| Gid::from_raw(*gid) == group.gid)
        })
    };
    let owner = Owner {
        name: &account.name,
        uid: account.uid,
        gids: &account.groups,
        is_member: &is_member,
    };
    let texts: Vec<String> = files()
        .iter()
        .map(|file| {
            String::from_utf8_lossy(&read_up_to(file, MAX_FILE).unwrap_or_default()).into_owned()
        })
        .collect();
    for found in find(texts.iter().flat_map(|text| text.lines()), &owner) {
        if let Err(error) = set(found) {
            let name = match found.item {
                Item::Limit(resource) => format!("{resource:?}").to_lowercase(),
                Item::Priority => "priority".to_owned(),
            };
            warnings.push(format!(
                "the limit {name} of {FILE} or {FOLDER} for the user {} cannot be set: {error}",
                account.name
            ));
        }
    }
}

/// The one file, then the files of the folder in the order of their names.
fn files() -> Vec<PathBuf> {
    let mut more: Vec<PathBuf> = std::fs::read_dir(FOLDER)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        })
        .collect();
    more.sort();
    more.insert(0, FILE.into());
    more
}

fn find<'a>(lines: impl Iterator<Item = &'a str>, owner: &Owner<'_>) -> Vec<Found> {
    let mut all: Vec<Found> = Vec::new();
    for line in lines {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(rank) = words.first().and_then(|domain| owner.rank(domain)) else {
            continue;
        };
        match words[1..] {
            // This line exempts the user from all limits.
            ["-"] if rank >= Rank::Group => return Vec::new(),
            [kind, item, value] => {
                let Some((item, amount)) = item_of(item)
                    .and_then(|(item, unit)| Some((item, Amount::read(value, item, unit)?)))
                else {
                    continue;
                };
                let index = all
                    .iter()
                    .position(|found| found.item == item)
                    .unwrap_or_else(|| {
                        all.push(Found {
                            item,
                            soft: None,
                            hard: None,
                        });
                        all.len() - 1
                    });
                let found = &mut all[index];
                let take = |place: &mut Option<(Rank, Amount)>| {
                    if place.is_none_or(|(known, _)| known <= rank) {
                        *place = Some((rank, amount));
                    }
                };
                if matches!(kind, "soft" | "-") {
                    take(&mut found.soft);
                }
                if matches!(kind, "hard" | "-") {
                    take(&mut found.hard);
                }
            }
            _ => {}
        }
    }
    all
}

impl Owner<'_> {
    /// The rank of a line for `domain`, if it applies to this user.
    fn rank(&self, domain: &str) -> Option<Rank> {
        // `low:high`, `low:` and, for one id, `:id`.
        let range = |text: &str, ids: &[u32]| {
            let (low, high) = text.split_once(':')?;
            let range = match (low.parse(), high.parse()) {
                (Ok(low), Ok(high)) => low..=high,
                (Ok(low), Err(_)) if high.is_empty() => low..=u32::MAX,
                (Err(_), Ok(high)) if low.is_empty() => high..=high,
                _ => return None,
            };
            Some(ids.iter().any(|id| range.contains(id)))
        };
        let is_root = self.uid == 0;
        if domain == self.name {
            return Some(Rank::User);
        }
        if let Some(group) = domain.strip_prefix('@') {
            let member = range(group, self.gids).unwrap_or_else(|| (self.is_member)(group));
            return (member && !is_root).then_some(Rank::Group);
        }
        if domain == "*" {
            return (!is_root).then_some(Rank::Everybody);
        }
        (range(domain, &[self.uid])? && !is_root).then_some(Rank::User)
    }
}

/// An item and the size of its unit.
fn item_of(name: &str) -> Option<(Item, i64)> {
    let (resource, unit) = match name {
        "core" => (Resource::Core, 1024),
        "data" => (Resource::Data, 1024),
        "fsize" => (Resource::Fsize, 1024),
        "memlock" => (Resource::Memlock, 1024),
        "nofile" => (Resource::Nofile, 1),
        "rss" => (Resource::Rss, 1024),
        "stack" => (Resource::Stack, 1024),
        "cpu" => (Resource::Cpu, 60),
        "nproc" => (Resource::Nproc, 1),
        "as" => (Resource::As, 1024),
        "locks" => (Resource::Locks, 1),
        "sigpending" => (Resource::Sigpending, 1),
        "msgqueue" => (Resource::Msgqueue, 1),
        "nice" => (Resource::Nice, 1),
        "rtprio" => (Resource::Rtprio, 1),
        "priority" => return Some((Item::Priority, 1)),
        _ => return None,
    };
    Some((Item::Limit(resource), unit))
}

impl Amount {
    fn read(text: &str, item: Item, unit: i64) -> Option<Self> {
        let number = || text.parse::<i64>().ok();
        match item {
            Item::Priority => Some(Amount::Of(number()?.clamp(-20, 19))),
            // The kernel counts from the lowest priority (setrlimit(2)).
            Item::Limit(Resource::Nice) => Some(Amount::Of(20 - number()?.clamp(-20, 19))),
            Item::Limit(_) if matches!(text, "unlimited" | "infinity" | "-1") => {
                Some(Amount::Unlimited)
            }
            Item::Limit(_) => {
                let number = number().filter(|number| *number >= 0)?;
                Some(
                    number
                        .checked_mul(unit)
                        .map_or(Amount::Unlimited, Amount::Of),
                )
            }
        }
    }

    fn kernels(self) -> Option<u64> {
        match self {
            Amount::Unlimited => None,
            Amount::Of(number) => u64::try_from(number).ok(),
        }
    }
}

fn set(found: Found) -> rustix::io::Result<()> {
    let amount = |place: Option<(Rank, Amount)>| place.map(|(_, amount)| amount);
    match found.item {
        Item::Priority => match amount(found.hard).or(amount(found.soft)) {
            Some(Amount::Of(priority)) => {
                setpriority_process(None, i32::try_from(priority).unwrap_or_default())
            }
            _ => Ok(()),
        },
        Item::Limit(resource) => {
            let now = getrlimit(resource);
            let hard = amount(found.hard).map_or(now.maximum, Amount::kernels);
            let soft = amount(found.soft).map_or(now.current, Amount::kernels);
            let soft = match (soft, hard) {
                (Some(soft), Some(hard)) => Some(soft.min(hard)),
                (soft, hard) => soft.or(hard),
            };
            setrlimit(
                resource,
                Rlimit {
                    current: soft,
                    maximum: hard,
                },
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, name: &str, uid: u32) -> Vec<String> {
        let owner = Owner {
            name,
            uid,
            gids: &[uid, 50],
            is_member: &|group| group == "staff",
        };
        find(text.lines(), &owner)
            .into_iter()
            .map(|Found { item, soft, hard }| {
                let show = |place: Option<(Rank, Amount)>| match place {
                    None => "as it is".to_owned(),
                    Some((_, Amount::Unlimited)) => "unlimited".to_owned(),
                    Some((_, Amount::Of(number))) => number.to_string(),
                };
                format!("{item:?} {}/{}", show(soft), show(hard))
            })
            .collect()
    }

    #[test]
    fn a_user_counts_more_than_a_group_and_a_group_more_than_everybody() {
        let text = "app soft nofile 777\n@staff - nofile 5000\n* hard nofile 888 # all\n@other hard nofile 9\n";
        assert_eq!(of(text, "app", 1234), ["Limit(Nofile) 777/5000"]);
        assert_eq!(
            of(text, "root", 0),
            [] as [&str; 0],
            "groups and everybody do not mean root"
        );
        assert_eq!(of("root - nofile 7", "root", 0), ["Limit(Nofile) 7/7"]);
        assert_eq!(
            of("app - nofile 1\napp - nofile 2", "app", 1),
            ["Limit(Nofile) 2/2"],
            "the last counts"
        );
    }

    #[test]
    fn every_item_is_read_in_its_unit() {
        let text = "app - memlock 64\napp hard cpu 2\napp soft core unlimited\napp - nice -5\napp - priority 10\n\
            app - maxlogins 1\napp - as much\napp - rtprio 99\n";
        let expected = [
            "Limit(Memlock) 65536/65536",
            "Limit(Cpu) as it is/120",
            "Limit(Core) unlimited/as it is",
            "Limit(Nice) 25/25",
            "Priority 10/10",
            "Limit(Rtprio) 99/99",
        ];
        assert_eq!(of(text, "app", 1234), expected);
    }

    #[test]
    fn ids_may_be_ranges_and_a_user_may_be_free_of_limits() {
        assert_eq!(of("1000: - nproc 5\n", "app", 1234), ["Limit(Nproc) 5/5"]);
        assert_eq!(of("1000:1200 - nproc 5\n", "app", 1234), [] as [&str; 0]);
        assert_eq!(of("@50:60 - nproc 5\n", "app", 1234), ["Limit(Nproc) 5/5"]);
        assert_eq!(of("* - nproc 5\napp -\n", "app", 1234), [] as [&str; 0]);
    }
}
