//! `[record]`: what is kept of a run, so that it can be run again.

use super::is_line;
use super::reader::{Fields, Report};
use super::sections::section;
use crate::kept::{RecordKeep, RecordSpec};
use crate::limits::{PATH_BYTES_MAX, RECORD_MIB, RECORD_MINUTES};
use std::path::Path;

pub(super) fn read_record(root: &mut Fields<'_>, file: &Path, report: &mut Report<'_>) -> Option<RecordSpec> {
    let mut fields = section(root, "record", report)?;
    let expected = "a folder, relative to the site's";
    let item = fields.required("folder", expected, report);
    let folder = item.and_then(|item| item.get_ref().as_str());
    let folder = folder.filter(|text| !text.is_empty() && is_line(text, PATH_BYTES_MAX));
    if let (Some(item), None) = (item, folder) {
        report.reject(item, fields.field("folder"), expected);
    }
    let mut keep = RecordKeep::Everything;
    if let Some(item) = fields.item("keep") {
        match item.get_ref().as_str() {
            Some("everything") => {}
            Some("faults") => keep = RecordKeep::Faults,
            _ => report.reject(item, fields.field("keep"), "\"everything\" or \"faults\""),
        }
    }
    let keep_text = fields.flag("keep_text", report);
    let size_mib = fields.count("size_mib", RECORD_MIB, 256, report);
    let minutes = fields.count("minutes", RECORD_MINUTES, 5, report);
    fields.finish(report);
    let folder = file.parent().unwrap_or(Path::new("")).join(folder?);
    Some(RecordSpec { folder, keep, keep_text, size_mib, minutes })
}
