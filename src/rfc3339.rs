//! Times in GoTrue's JSON, as Go prints them (RFC 3339).

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

#[cfg(test)]
mod tests {
    use super::*;

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
