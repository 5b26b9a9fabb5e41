//! The option `--data-dir`. Its path comes out where its owner acts, and else only to be named.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::DEFAULT_DATA_DIR;
use crate::custody::{self, CustodyError};
use crate::service::DATA_DIR_VARIABLE;

#[derive(Debug, Args)]
pub(super) struct DataDir {
    /// Directory of the service's database and keys.
    #[arg(long, env = DATA_DIR_VARIABLE, default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
}

impl DataDir {
    /// For the program to work in: as its owner, from here to the end.
    pub(super) fn enter(&self) -> Result<&Path, CustodyError> {
        custody::act_as_owner(&self.data_dir)?;
        Ok(&self.data_dir)
    }

    /// For `work` to work in, as its owner; the caller stays who it is.
    pub(super) fn visit<T: Send>(&self, work: impl FnOnce(&Path) -> T + Send) -> Result<T, CustodyError> {
        custody::as_owner(&self.data_dir, work)
    }

    /// Whether a file is in it, so that its owner could have put anything in the file's place.
    pub(super) fn holds(&self, file: &Path) -> bool {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let [folder, data_dir] = [folder.unwrap_or(Path::new(".")), &self.data_dir].map(Path::canonicalize);
        matches!((folder, data_dir), (Ok(folder), Ok(data_dir)) if folder.starts_with(&data_dir))
    }

    /// To be named.
    pub(super) fn path(&self) -> &Path {
        &self.data_dir
    }
}
