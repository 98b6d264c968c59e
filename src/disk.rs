//! Files read and written as a whole: whoever reads one sees the old contents or the new, never a
//! part.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// The bytes of a file or pipe.
///
/// # Errors
/// It cannot be read, or is a device: some of those never end.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if fs::metadata(path)?.file_type().is_char_device() {
            return Err(io::Error::other("it is a device; name a file"));
        }
    }
    fs::read(path)
}

/// As [`read`], text.
///
/// # Errors
/// As of [`read`], or bytes that are no UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let no_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is no text in UTF-8");
    String::from_utf8(read(path)?).map_err(no_text)
}

/// Writes a file beside `path` and renames it there. What stood there before, a link too, is
/// replaced and not written into.
///
/// # Errors
/// Nothing can be written beside `path`, or `path` cannot be replaced; what was there stays.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = beside(path)?;
    file.write_all(bytes)?;
    if let Ok(old) = path.metadata() {
        fs::set_permissions(file.path(), old.permissions())?;
    }
    file.persist(path).map(drop).map_err(|e| e.error)
}

/// An empty file beside `path`, which is gone when it is dropped.
///
/// # Errors
/// The folder is missing, or nothing can be written there.
pub fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = Builder::new();
    builder.prefix(".crossover-");
    // Temporary files are private to their owner; results are ordinary files.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder).map_err(without_name)
}

/// The error without the name of the temporary file, which means nothing to anybody.
fn without_name(e: io::Error) -> io::Error {
    let text = e.to_string();
    let what = text.rsplit_once(" at path ").map_or(text.as_str(), |(what, _)| what);
    io::Error::new(e.kind(), what.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_never_ends_is_not_read() {
        assert!(read(Path::new("/dev/zero")).unwrap_err().to_string().contains("device"));
        assert!(read_text(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn what_stood_there_is_replaced_and_not_written_into() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["a", "b"].map(|name| folder.path().join(name));
        replace(&path, b"one").unwrap();
        fs::hard_link(&path, &other).unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), fs::read(&other).unwrap()),
            (b"two".into(), b"one".into())
        );
        let said = replace(&folder.path().join("none/x"), b"").unwrap_err().to_string();
        assert!(said.contains("No such file") && !said.contains(".crossover-"), "{said}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
