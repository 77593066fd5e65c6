//! The node's data folder: what must survive a restart and is not on a disk of its own. One process at a time has it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// Another process has it.
    #[error(
        "the data folder {path} is in use by {owner}; stop that process, or give another folder with --data"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// `process 123`, or `another process`.
        owner: String,
    },
    /// It cannot be made, locked or written.
    #[error(
        "the data folder {path} cannot be used: {error}; give one with --data that this user may write"
    )]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The folder, locked for as long as this lives.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    lock: File,
}

impl DataFolder {
    /// Makes the folder if it is missing, and takes it.
    pub fn open(path: &Path) -> Result<DataFolder, DataFolderError> {
        let failed = |error| DataFolderError::Io { path: path.to_owned(), error };
        fs::create_dir_all(path).map_err(failed)?;
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path.join(LOCK))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataFolderError::InUse {
                    path: path.to_owned(),
                    owner: owner(&mut lock),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        note_owner(&mut lock).map_err(failed)?;
        Ok(DataFolder { path: path.to_owned(), lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataFolder {
    /// Unlocks rather than just closes: a child that another thread starts at this moment holds a copy of the descriptor until it
    /// runs its program, and the lock would outlive this value by that long. What fails here fails the close as well.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

fn note_owner(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

fn owner(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok())
    {
        Some(process) => format!("process {process}"),
        None => "another process".to_owned(),
    }
}

/// Replaces the file `name` in `folder` by `text`, whole or not at all; durable when it returns.
pub fn replace_file(folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_told_who_the_first_is_until_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/data");
        let first = DataFolder::open(&path).unwrap();
        let error = DataFolder::open(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(first);
        DataFolder::open(&path).unwrap();
    }

    #[test]
    fn a_copy_of_the_descriptor_in_a_child_that_just_starts_keeps_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataFolder::open(folder.path()).unwrap();
        let _copy = first.lock.try_clone().unwrap();
        drop(first);
        DataFolder::open(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = DataFolder::open(&file.join("data")).unwrap_err().to_string();
        assert!(error.contains("file/data cannot be used") && error.contains("--data"), "{error}");
    }

    #[test]
    fn a_replaced_file_is_the_new_one_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        replace_file(folder.path(), "x", b"old and longer").unwrap();
        replace_file(folder.path(), "x", b"new").unwrap();
        assert_eq!(fs::read(folder.path().join("x")).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
