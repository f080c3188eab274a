//! Which registers to read together.

use crate::encode::decode_register;
use crate::limits::{READ_BITS_MAX, READ_REGISTERS_MAX};
use crate::modbus::Quality;
use ganglion_site::{ReadTable, Site, Tag, TagKind};

/// One read request and the tags it serves. Covers only addresses that a tag names, since a device may refuse others.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Batch {
    pub(super) table: ReadTable,
    pub(super) address: u16,
    pub(super) count: u16,
    pub(super) members: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    /// Index into the site's tags.
    pub(super) tag: usize,
    /// Place in the answer.
    pub(super) offset: usize,
    scale: f64,
    kind: TagKind,
    range: (f64, f64),
}

/// The reads of a site, in as few requests as contiguous addresses and the protocol's limits allow.
pub(super) fn plan(site: &Site) -> Vec<Batch> {
    let mut reads: Vec<_> =
        site.tags.iter().enumerate().filter_map(|(i, tag)| Some((i, tag, tag.read?))).collect();
    reads.sort_by_key(|(_, _, read)| (table_order(read.table), read.address));
    let mut batches: Vec<Batch> = Vec::new();
    for (index, tag, read) in reads {
        let member = |offset: u16| Member::new(index, tag, read.scale, offset);
        if let Some(batch) = batches.last_mut().filter(|batch| batch.table == read.table) {
            let offset = read.address - batch.address;
            if offset <= batch.count && offset < count_max(read.table) {
                batch.count = batch.count.max(offset + 1);
                batch.members.push(member(offset));
                continue;
            }
        }
        batches.push(Batch { table: read.table, address: read.address, count: 1, members: vec![member(0)] });
    }
    batches
}

fn table_order(table: ReadTable) -> u8 {
    match table {
        ReadTable::Coil => 0,
        ReadTable::Discrete => 1,
        ReadTable::Holding => 2,
        ReadTable::Input => 3,
    }
}

fn count_max(table: ReadTable) -> u16 {
    match table {
        ReadTable::Coil | ReadTable::Discrete => READ_BITS_MAX,
        ReadTable::Holding | ReadTable::Input => READ_REGISTERS_MAX,
    }
}

impl Member {
    fn new(index: usize, tag: &Tag, scale: f64, offset: u16) -> Self {
        let range = (tag.range_lo, tag.range_hi);
        Self { tag: index, offset: usize::from(offset), scale, kind: tag.kind, range }
    }

    /// Value and quality of a register's content.
    pub(super) fn decode(&self, raw: u16) -> (f64, Quality) {
        let (value, good) = match self.kind {
            TagKind::Bool => (f64::from(raw), raw <= 1),
            TagKind::Number => {
                let value = decode_register(raw, self.scale);
                (value, value >= self.range.0 && value <= self.range.1)
            }
        };
        (value, if good { Quality::Good } else { Quality::BadOutOfRange })
    }
}
