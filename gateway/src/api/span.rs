//! Lengths of time as texts: `2h`, `90s`, `1h30m`.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads a length of time: whole numbers with a unit (ms, s, m, h, d), the larger unit first.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis = 0u64;
    let mut smaller_than = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == &rest[..letters])?;
        if unit >= smaller_than {
            return None;
        }
        smaller_than = unit;
        millis = millis.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then(|| Duration::from_millis(millis))
}

/// Writes a length of time with its largest fitting unit.
pub fn format(span: Duration) -> String {
    let millis = span.as_millis() as u64;
    let (name, unit) = UNITS.into_iter().rev().find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit)).unwrap_or(UNITS[0]);
    format!("{}{name}", millis / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_write() {
        for (text, millis) in [("2h", 7_200_000), ("90s", 90_000), ("1h30m", 5_400_000), ("250ms", 250), ("1d", 86_400_000), ("0s", 0)] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "2", "h", "2x", "-1h", "1.5h", "1m1h", "1h1h", "99999999999999999999h", "18446744073709551615d", " 1h", "1 h"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        for text in ["250ms", "90s", "15s", "2h", "1d"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }
}
