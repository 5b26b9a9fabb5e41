//! The size of the folder of revisions.

use std::collections::BTreeMap;
use std::fs;

use super::{ObjectError, Objects, failed};

impl Objects {
    /// Returns the bytes of all files of each bucket. Files that disappear meanwhile do not count.
    pub fn sizes(&self) -> Result<BTreeMap<String, u64>, ObjectError> {
        let mut sizes = BTreeMap::new();
        for (bucket, _) in self.buckets()? {
            let mut folders = vec![self.folder.join(&bucket)];
            let mut size = 0;
            while let Some(folder) = folders.pop() {
                let Ok(entries) = fs::read_dir(&folder) else {
                    continue;
                };
                for entry in entries {
                    let entry = entry.map_err(failed(&folder))?;
                    let Ok(metadata) = entry.metadata() else {
                        continue;
                    };
                    if metadata.is_dir() {
                        folders.push(entry.path());
                    } else {
                        size += metadata.len();
                    }
                }
            }
            sizes.insert(bucket, size);
        }
        Ok(sizes)
    }
}
