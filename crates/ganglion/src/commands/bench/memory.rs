//! What the kernel says this process occupies.

use anyhow::{Context, Result};

/// Resident memory in bytes. Shared memory is part of `total` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    pub total: u64,
    /// Allocated: the KV cache, buffers, weights that were copied.
    pub anonymous: u64,
    /// Mapped files: mapped weights, the program itself.
    pub file: u64,
    /// The most that `total` ever was.
    pub peak: u64,
}

impl Resident {
    pub fn now() -> Result<Self> {
        let file = "/proc/self/status";
        let status =
            std::fs::read_to_string(file).with_context(|| format!("{file}: it says what is resident"))?;
        Self::parse(&status).with_context(|| format!("{file}: no VmRSS, RssAnon, RssFile or VmHWM in kB"))
    }

    fn parse(status: &str) -> Option<Self> {
        let bytes = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        Some(Self {
            total: bytes("VmRSS")?,
            anonymous: bytes("RssAnon")?,
            file: bytes("RssFile")?,
            peak: bytes("VmHWM")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_proc_become_bytes() {
        let status = "Name:\tganglion\nVmHWM:\t    300 kB\nVmRSS:\t    200 kB\nRssAnon:\t   150 kB\nRssFile:\t    50 kB\n";
        let parsed = Resident { total: 200 << 10, anonymous: 150 << 10, file: 50 << 10, peak: 300 << 10 };
        assert_eq!(Resident::parse(status), Some(parsed));
        assert_eq!(Resident::parse("VmRSS: much\n"), None);
    }

    #[test]
    fn what_is_written_becomes_resident() {
        // Other tests of this process allocate and free meanwhile, but not at every try.
        let grown = (0..10).map(|_| {
            let before = Resident::now().unwrap();
            let _block = std::hint::black_box(vec![1u8; 64 << 20]);
            let after = Resident::now().unwrap();
            assert!(after.peak >= after.total);
            after.anonymous.saturating_sub(before.anonymous)
        });
        let most = grown.max().unwrap();
        assert!(most > 32 << 20, "{} bytes became {most}", 64 << 20);
    }
}
