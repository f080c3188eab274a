//! What commands that write models ask of paths before the work begins: minutes of it should not end in a lost file.

use anyhow::{Context, Result, ensure};
use std::path::Path;

/// Refuses a result that is one of the files that are read (through links too), that is a folder, or whose folder does not exist.
pub fn check_result(out: &Path, read: &[&Path]) -> Result<()> {
    ensure!(!out.is_dir(), "{} is a folder; give the result a file's name", out.display());
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "the folder {} does not exist; make it first", folder.display());
    for file in read {
        refuse_same(file, out)?;
    }
    Ok(())
}

/// Refuses a result that is its own source.
pub fn refuse_same(source: &Path, out: &Path) -> Result<()> {
    ensure!(!same(source, out), "{} is both source and result; give the result another name", out.display());
    Ok(())
}

/// Whether two paths are one file, or will be once it is written.
fn same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// A text file, whole.
pub fn read_text(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("text {}", file.display()))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!(
            "text {}: byte {at} is not UTF-8; convert it, as with `iconv -t utf-8`",
            file.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_would_cost_a_file_are_refused() {
        let folder = std::env::temp_dir().join(format!("ganglion-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (source, link) = (folder.join("a"), folder.join("b"));
        std::fs::write(&source, "x").unwrap();
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&source, &link).unwrap();
        let said = |out: &Path| check_result(out, &[&source]).unwrap_err().to_string();
        assert!(said(&source).contains("both source and result"));
        assert!(said(&link).contains("both source and result"));
        assert!(said(&folder).contains("is a folder"));
        assert!(said(&folder.join("no/c")).contains("does not exist"));
        assert!(check_result(&folder.join("c"), &[&source]).is_ok());
        assert!(check_result(Path::new("c"), &[]).is_ok());
        // Two results that do not exist yet.
        assert!(check_result(&folder.join("c"), &[&folder.join("c")]).is_err());

        std::fs::write(&source, b"ab\xffc").unwrap();
        assert!(read_text(&source).unwrap_err().to_string().contains("byte 2 is not UTF-8"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
