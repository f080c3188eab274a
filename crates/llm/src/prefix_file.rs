//! The keys and values behind a prefix, kept on disk between runs: a prefix is evaluated once and read ever after.
//!
//! One file for each model, prefix and type of keys and values, in the format of [`Session::save`]. Its name is a hash of all of
//! these, so that a changed prefix never finds the file of its predecessor; the content says again what it is of.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::TokenId;
use crate::error::{LlmError, Result};
use crate::session::Session;

/// Where the evaluated prefixes of one model are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixFile {
    folder: PathBuf,
    /// Names the model file; at most 64 bytes.
    model_id: String,
}

impl PrefixFile {
    /// Files of the model with this name in a folder, which need not exist yet.
    pub(crate) fn new(folder: impl Into<PathBuf>, model_id: String) -> Self {
        Self { folder: folder.into(), model_id }
    }

    /// The file that holds, or would hold, the state behind `prefix` for sessions like this one.
    pub fn path(&self, session: &Session, prefix: &[TokenId]) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(self.model_id.as_bytes());
        hash.update(session.options().kv.name().as_bytes());
        prefix.iter().for_each(|token| hash.update(token.to_le_bytes()));
        let name: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{name}.prefix"))
    }

    /// Leaves the session holding `prefix` and nothing else: read from the file, or evaluated and written there. A file that
    /// cannot be read is replaced; one that cannot be written is done without. The bits are the same either way.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn restore_or_evaluate(&self, session: &mut Session, prefix: &[TokenId]) -> Result<()> {
        let path = self.path(session, prefix);
        if let Ok(file) = File::open(&path)
            && session.restore(&self.model_id, &mut BufReader::new(file)).is_ok()
            && session.tokens() == prefix
        {
            return Ok(());
        }
        session.truncate(0)?;
        session.prefill(prefix, &mut || false)?;
        // The next start evaluates it anew, that is all.
        let _ = self.write(session, &path);
        Ok(())
    }

    fn write(&self, session: &Session, path: &Path) -> Result<()> {
        let failed = |source| LlmError::KvFileIo { action: "write", source };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        // Two processes may write the same file at once: each under a name of its own.
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let file = File::create(&temporary).map_err(failed)?;
        let mut out = BufWriter::new(file);
        let written = session
            .save(&self.model_id, &mut out)
            .and_then(|()| out.get_ref().sync_all().map_err(failed))
            .and_then(|()| fs::rename(&temporary, path).map_err(failed));
        if written.is_err() {
            // What cannot be removed is left over: the name says that it is temporary.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}
