//! RFC 3339: times in GoTrue's JSON, as Go prints them, and the times of our own log.

use std::time::{Duration, SystemTime};

use crate::session::Seconds;

/// Milliseconds since the epoch of an RFC 3339 time, rounded up: what holds until then holds
/// through the one it lies in. `None` for anything else, and for times before the epoch.
pub fn millis(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't'])?;
    let (clock, offset) = split_offset(time)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    let on_calendar = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !on_calendar || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let whole = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    Some(u64::try_from(whole).ok()? * 1_000 + millis_of(fraction)?)
}

/// Milliseconds of the digits behind the point, rounded up.
fn millis_of(fraction: &str) -> Option<u64> {
    if fraction.is_empty() || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let (head, rest) = fraction.split_at(fraction.len().min(3));
    let head: u64 = format!("{head:0<3}").parse().ok()?;
    Some(head + u64::from(rest.bytes().any(|digit| digit != b'0')))
}

/// The clock, and how many seconds it is ahead of UTC.
fn split_offset(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let (clock, offset) = time.split_at_checked(time.len().checked_sub(6)?)?;
    let (sign, offset) = offset.split_at_checked(1)?;
    let (hours, minutes) = offset.split_once(':')?;
    let ahead = number(hours)? * 3_600 + number(minutes)? * 60;
    match sign {
        "+" => Some((clock, ahead)),
        "-" => Some((clock, -ahead)),
        _ => None,
    }
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(number);
    let found = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(found)
}

/// Up to four digits and nothing else.
fn number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Days from the epoch to a date of the Gregorian calendar, counted in years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// A time in UTC to the second, as Go prints it.
pub fn seconds(at: Seconds) -> String {
    let (year, month, day) = date(at / 86_400);
    let (hour, minute, second) = (at / 3_600 % 24, at / 60 % 60, at % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Appends a time in UTC, with milliseconds. Times before the epoch are printed as the epoch.
pub fn write(out: &mut Vec<u8>, at: SystemTime) {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let parts = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (seconds / 3_600 % 24, 2, b':'),
        (seconds / 60 % 60, 2, b':'),
        (seconds % 60, 2, b'.'),
        (since.subsec_millis().into(), 3, b'Z'),
    ];
    for (value, digits, end) in parts {
        decimal(out, value, digits);
        out.push(end);
    }
}

/// Year, month and day: [`days`] the other way round.
fn date(days: u64) -> (u64, u64, u64) {
    // an era is the 400 years after which the calendar repeats itself
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Appends a number with at least so many digits.
pub(crate) fn decimal(out: &mut Vec<u8>, value: u64, digits: usize) {
    let mut text = [b'0'; 20];
    let mut rest = value;
    let mut length = 0;
    for place in text.iter_mut().rev() {
        if rest == 0 && length >= digits {
            break;
        }
        *place = b"0123456789".get((rest % 10) as usize).copied().unwrap_or(b'0');
        rest /= 10;
        length += 1;
    }
    let (_, used) = text.split_at(text.len() - length);
    out.extend_from_slice(used);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_they_are_read() {
        let table = [
            "1970-01-01T00:00:00.000Z",
            "1972-02-29T23:59:59.999Z",
            "2000-02-29T12:34:56.007Z",
            "2026-11-24T00:07:50.108Z",
            "2100-03-01T00:00:00.000Z",
            "9999-12-31T23:59:59.010Z",
        ];
        for text in table {
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(millis(text).unwrap());
            let mut out = Vec::new();
            write(&mut out, at);
            assert_eq!(String::from_utf8(out).unwrap(), text);
            let whole = text.split('.').next().unwrap();
            assert_eq!(seconds(millis(&format!("{whole}Z")).unwrap() / 1000), format!("{whole}Z"));
        }
        for day in 0..2_932_896 {
            let (year, month, dom) = date(day);
            let back = days(year.cast_signed(), month.cast_signed(), dom.cast_signed());
            assert_eq!(back, day.cast_signed());
        }
    }

    #[test]
    fn times_are_read_as_go_prints_them() {
        let table = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-24T00:07:50Z", Some(1_795_478_870_000)),
            ("2026-11-24T00:07:50.000000Z", Some(1_795_478_870_000)),
            ("2026-11-24T00:07:50.107666Z", Some(1_795_478_870_108)),
            ("2026-11-24T00:07:50.9999Z", Some(1_795_478_871_000)),
            ("2026-11-24T02:07:50.1+02:00", Some(1_795_478_870_100)),
            ("2026-11-23T19:37:50-04:30", Some(1_795_478_870_000)),
            ("2024-02-29T12:00:00Z", Some(1_709_208_000_000)),
            ("2000-03-01T00:00:00Z", Some(951_868_800_000)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799_000)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-11-24", None),
            ("2026-11-24T00:07:50", None),
            ("2026-13-24T00:07:50Z", None),
            ("2026-11-24T00:07:50.Z", None),
            ("2026-11-24T00:07:50.1x", None),
            ("2026-11-24T-0:07:50Z", None),
            ("none", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(millis(text), expected, "{text}");
        }
    }
}
