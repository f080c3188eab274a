//! Latency histograms as files that HdrHistogram's plotters read (`.hgrm`): the percentile distribution of
//! `HistogramLogProcessor`, with five ticks for every halving of the distance to 100 %.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// Writes `values` to a file; a value is divided by `per_unit` before it is printed.
pub fn write_file(path: &Path, values: &Histogram<u64>, per_unit: f64) -> Result<()> {
    write_to(create(path)?, path, values, per_unit)
}

/// The file, before there is anything to write: what takes a day to measure should not be lost for want of one.
pub fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

/// As [`write_file`], into a file that is open.
pub fn write_to(file: File, path: &Path, values: &Histogram<u64>, per_unit: f64) -> Result<()> {
    let mut out = BufWriter::new(file);
    write(&mut out, values, per_unit).and_then(|()| out.flush()).with_context(|| path.display().to_string())
}

fn write(out: &mut impl Write, values: &Histogram<u64>, per_unit: f64) -> std::io::Result<()> {
    let scaled = |value: u64| value as f64 / per_unit;
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut count = 0;
    for step in values.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let (value, quantile) = (scaled(step.value_iterated_to()), step.quantile_iterated_to());
        write!(out, "{value:12.3} {quantile:14.12} {count:10}")?;
        if quantile < 1.0 {
            write!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        values.mean() / per_unit,
        values.stdev() / per_unit
    )?;
    writeln!(out, "#[Max     = {:12.3}, Total count    = {:12}]", scaled(values.max()), values.len())?;
    // Twice the values that have to be told apart, as a power of two (HdrHistogram's own layout).
    let sub_buckets = (2 * 10_u64.pow(values.sigfig().into())).next_power_of_two();
    writeln!(out, "#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]", values.buckets())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_hdrhistogram_does() {
        let mut values = Histogram::new_with_bounds(1, 3_600_000_000, 3).unwrap();
        for us in [1000, 2000, 2000, 3000] {
            values.record(us).unwrap();
        }
        let mut out = Vec::new();
        write(&mut out, &values, 1000.0).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[2], "       1.000 0.000000000000          1           1.00");
        let last = lines.iter().rfind(|line| !line.starts_with('#')).unwrap();
        assert_eq!(*last, "       3.001 1.000000000000          4");
        assert!(lines.contains(&"#[Max     =        3.001, Total count    =            4]"), "{text}");
        assert!(lines.last().unwrap().ends_with("SubBuckets     =         2048]"), "{text}");
        // Percentiles and counts never go back, and end with everything.
        let columns: Vec<(f64, f64, u64)> = lines
            .iter()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let mut fields = line.split_whitespace();
                let mut next = || fields.next().unwrap();
                (next().parse().unwrap(), next().parse().unwrap(), next().parse().unwrap())
            })
            .collect();
        assert!(columns.is_sorted());
    }
}
