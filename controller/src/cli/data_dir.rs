//! The option `--data-dir`. Its path is accessible only while acting as its owner, or for messages.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::DEFAULT_DATA_DIR;
use crate::privileges::{self, PrivilegesError};
use crate::service::DATA_DIR_VARIABLE;

#[derive(Debug, Args)]
pub(super) struct DataDir {
    /// Directory of the service's database and keys.
    #[arg(long, env = DATA_DIR_VARIABLE, default_value = DEFAULT_DATA_DIR, value_name = "FOLDER")]
    data_dir: PathBuf,
}

impl DataDir {
    /// Returns it for the rest of the program, which then acts as its owner.
    pub(super) fn enter(&self) -> Result<&Path, PrivilegesError> {
        privileges::act_as_owner(&self.data_dir)?;
        Ok(&self.data_dir)
    }

    /// Runs `work` in it as its owner; the caller stays who it is.
    pub(super) fn visit<T: Send>(
        &self,
        work: impl FnOnce(&Path) -> T + Send,
    ) -> Result<T, PrivilegesError> {
        privileges::as_owner(&self.data_dir, work)
    }

    /// Whether it contains a file, so that its owner could have replaced the file by anything.
    pub(super) fn holds(&self, file: &Path) -> bool {
        let folder = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let [folder, data_dir] =
            [folder.unwrap_or(Path::new(".")), &self.data_dir].map(Path::canonicalize);
        matches!((folder, data_dir), (Ok(folder), Ok(data_dir)) if folder.starts_with(&data_dir))
    }

    /// The path, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.data_dir
    }
}
