//! The few conversions of `strftime` that chat templates use; time zone UTC, names in English.

use crate::limits;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const DAY_S: i64 = 86_400;

/// Formats a time given in seconds since 1970-01-01T00:00:00Z.
///
/// # Errors
/// A message that names a conversion that is not supported, a year outside 0 to 9999, or a text that is too long.
pub(crate) fn format_time(unix_s: i64, format: &str) -> Result<String, String> {
    let days = unix_s.div_euclid(DAY_S);
    let second = unix_s.rem_euclid(DAY_S);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (year, month, day) = civil_from_days(days);
    if !(0..=9999).contains(&year) {
        return Err(format!("strftime_now: year {year} is outside 0 to 9999"));
    }
    let month_name = MONTHS[(month - 1) as usize];
    let weekday_name = WEEKDAYS[(days + 4).rem_euclid(7) as usize]; // 1970-01-01 was a Thursday
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
        } else {
            match chars.next() {
                Some('Y') => out.push_str(&format!("{year:04}")),
                Some('y') => out.push_str(&format!("{:02}", year % 100)),
                Some('m') => out.push_str(&format!("{month:02}")),
                Some('d') => out.push_str(&format!("{day:02}")),
                Some('e') => out.push_str(&format!("{day:2}")),
                Some('H') => out.push_str(&format!("{hour:02}")),
                Some('M') => out.push_str(&format!("{minute:02}")),
                Some('S') => out.push_str(&format!("{second:02}")),
                Some('B') => out.push_str(month_name),
                Some('b') => out.push_str(&month_name[..3]),
                Some('A') => out.push_str(weekday_name),
                Some('a') => out.push_str(&weekday_name[..3]),
                Some('F') => out.push_str(&format!("{year:04}-{month:02}-{day:02}")),
                Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
                Some('%') => out.push('%'),
                Some(other) => return Err(format!("strftime_now: `%{other}` is not supported")),
                None => return Err("strftime_now: the format ends in `%`".to_owned()),
            }
        }
        if out.len() > limits::TIME_TEXT_BYTES_MAX {
            return Err(format!("strftime_now: more than {} bytes", limits::TIME_TEXT_BYTES_MAX));
        }
    }
    Ok(out)
}

/// Year, month (1 to 12) and day (1 to 31) of the proleptic Gregorian calendar, from days since 1970-01-01.
///
/// Counts in eras of 400 years that start on 1 March, so that the leap day is the last of its year.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468; // days from 0000-03-01 to 1970-01-01
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        let check = |unix_s, expected: &str| {
            assert_eq!(
                format_time(unix_s, "%a %A %F %T %d %b %Y %B %e %y %m %H:%M:%S %%").unwrap(),
                expected
            );
        };
        check(0, "Thu Thursday 1970-01-01 00:00:00 01 Jan 1970 January  1 70 01 00:00:00 %");
        check(951_782_399, "Mon Monday 2000-02-28 23:59:59 28 Feb 2000 February 28 00 02 23:59:59 %");
        check(951_868_799, "Tue Tuesday 2000-02-29 23:59:59 29 Feb 2000 February 29 00 02 23:59:59 %");
        check(-1, "Wed Wednesday 1969-12-31 23:59:59 31 Dec 1969 December 31 69 12 23:59:59 %");
    }

    #[test]
    fn refusals() {
        assert!(format_time(0, "%Q").unwrap_err().contains("%Q"));
        assert!(format_time(0, "%").is_err());
        assert!(format_time(i64::MAX, "%Y").is_err());
        assert!(format_time(i64::MIN, "%Y").is_err());
        assert!(format_time(0, &"x".repeat(1000)).is_err());
    }
}
