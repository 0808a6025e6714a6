//! The journals as they were found, in memory until it is known whether the store is whole.
//!
//! fjall cuts a journal off where it cannot read on, so that opening a damaged store makes the damage final. Where the store
//! is refused then, its journals are put back as they were, for whoever wants to save what is in them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

/// The journals of one store.
pub(super) struct Journals {
    directory: PathBuf,
    found: Vec<Journal>,
}

struct Journal {
    path: PathBuf,
    /// The file's length. fjall allots more than it writes; the rest is a hole.
    length: u64,
    /// Its bytes up to the hole.
    data: Vec<u8>,
}

impl Journals {
    /// Takes the journals in `directory` into memory: what fjall has not moved to its tables yet.
    pub(super) fn hold(directory: &Path) -> io::Result<Self> {
        let mut found = Vec::new();
        for path in paths(directory)? {
            let mut file = File::open(&path)?;
            let length = file.metadata()?.len();
            let mut data = Vec::new();
            let written = written(&file, length)?;
            // Asking for the hole has moved the file's position.
            rustix::fs::seek(&file, SeekFrom::Start(0))?;
            Read::by_ref(&mut file).take(written).read_to_end(&mut data)?;
            found.push(Journal { path, length, data });
        }
        Ok(Self {
            directory: directory.to_owned(),
            found,
        })
    }

    /// Puts the journals back as they were, and takes away those that have been made since. The database must be closed.
    pub(super) fn put_back(&self) -> io::Result<()> {
        for path in paths(&self.directory)? {
            if !self.found.iter().any(|journal| journal.path == path) {
                fs::remove_file(path)?;
            }
        }
        for journal in &self.found {
            let mut file = File::create(&journal.path)?;
            file.write_all(&journal.data)?;
            file.set_len(journal.length)?;
            file.sync_all()?;
        }
        Ok(())
    }
}

fn paths(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Where the last of `file`'s data ends; all of it on a file system that knows no holes.
fn written(file: &File, length: u64) -> io::Result<u64> {
    let mut end = 0;
    loop {
        match rustix::fs::seek(file, SeekFrom::Data(end)) {
            Ok(_) => {}
            // No data from there on.
            Err(rustix::io::Errno::NXIO) => return Ok(end),
            Err(rustix::io::Errno::INVAL) => return Ok(length),
            Err(error) => return Err(error.into()),
        }
        end = rustix::fs::seek(file, SeekFrom::Hole(end))?;
        if end >= length {
            return Ok(length);
        }
    }
}

const EXTENSION: &str = "jnl";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_are_put_back_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.jnl");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"written").unwrap();
        file.set_len(1 << 20).unwrap();
        fs::write(directory.path().join("other"), "stays").unwrap();

        let journals = Journals::hold(directory.path()).unwrap();
        assert!(journals.found[0].data.len() < 1 << 20, "a hole is not read");
        let before = fs::read(&path).unwrap();
        file.set_len(0).unwrap();
        fs::write(directory.path().join("1.jnl"), "made since").unwrap();
        journals.put_back().unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
        assert!(!directory.path().join("1.jnl").exists());
        assert!(directory.path().join("other").exists());
    }
}
