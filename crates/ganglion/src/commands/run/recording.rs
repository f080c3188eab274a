//! The recording of a run: `[record]` in the site file, or `--record`.

use super::wall_ms;
use crate::answer::Identity;
use anyhow::Result;
use ganglion_guard::Guard;
use ganglion_record::{About, Options, Tape, Writer, fingerprint};
use ganglion_site::{RecordKeep, RecordSpec};
use std::path::Path;
use std::sync::Arc;

/// What `--record` without `[record]` means.
const BY_HAND: RecordSpec = RecordSpec {
    folder: std::path::PathBuf::new(),
    keep: RecordKeep::Everything,
    keep_text: false,
    size_mib: 256,
    minutes: 5,
};

/// Starts the recorder, if one is wanted; its tape is for the guard's thread.
pub fn start(
    guard: &Guard,
    identity: &Identity,
    text: &Arc<str>,
    folder: Option<&Path>,
    dry_run: bool,
) -> Result<(Option<Tape>, Option<Writer>)> {
    let site = &identity.site;
    let spec = match (&site.record, folder) {
        (Some(spec), None) => spec.clone(),
        (spec, Some(folder)) => {
            let keep = RecordKeep::Everything;
            RecordSpec { folder: folder.to_owned(), keep, ..spec.clone().unwrap_or(BY_HAND) }
        }
        (None, None) => return Ok((None, None)),
    };
    let options = Options {
        folder: spec.folder,
        everything: spec.keep == RecordKeep::Everything,
        keep_text: spec.keep_text,
        size_bytes_max: u64::from(spec.size_mib) << 20,
        flight_us: u64::from(spec.minutes) * 60_000_000,
    };
    let site = (Arc::clone(text), fingerprint(text));
    let models = identity.models.to_vec();
    let about = About { site_file: identity.site.file.clone(), site, models, dry_run };
    let (tape, writer) = Writer::start(guard, options, about, wall_ms)?;
    Ok((Some(tape), Some(writer)))
}
