//! Periods of the log and the names of their files.
//!
//! All in UTC. An event belongs to the period that holds its own time, so the
//! same event always goes to the same file. A file is recognised by its name
//! alone: files of several kinds may lie side by side after the configuration
//! was changed.

use jiff::{Span as Length, civil::Date, civil::ISOWeekDate, civil::Weekday, tz::Offset};
use posthaste_model::Timestamp;
use serde::{Deserialize, Serialize};

/// How long one file of the log lasts, in UTC.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// A calendar day: `logs-2026-11-24.db`.
    Daily,
    /// An ISO 8601 week, Monday to Sunday: `logs-2026-w48.db`.
    Weekly,
    /// A calendar month: `logs-2026-11.db`.
    #[default]
    Monthly,
    /// A calendar year: `logs-2026.db`.
    Yearly,
}

/// 9999-01-01T00:00:00Z. A time that no calendar holds must not stop the log:
/// it is filed at the end, or at 1970.
const LAST_MILLIS: i64 = 253_370_764_800_000;
/// More periods than any calendar holds are as good as this many.
const MAX_EARLIER: u32 = 10_000;

impl Period {
    fn start(self, date: Date) -> Date {
        match self {
            Self::Daily => date,
            Self::Weekly => {
                let since_monday = i64::from(date.weekday().to_monday_zero_offset());
                date.saturating_sub(Length::new().days(since_monday))
            }
            Self::Monthly => date.first_of_month(),
            Self::Yearly => date.first_of_year(),
        }
    }

    fn length(self, count: u32) -> Length {
        let count = i64::from(count.min(MAX_EARLIER));
        match self {
            Self::Daily => Length::new().days(count),
            Self::Weekly => Length::new().weeks(count),
            Self::Monthly => Length::new().months(count),
            Self::Yearly => Length::new().years(count),
        }
    }
}

/// One period of the log: one file. Sorts by its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span {
    start: Date,
    period: Period,
}

impl Span {
    /// The one that holds `time`.
    pub(crate) fn containing(period: Period, time: Timestamp) -> Self {
        let millis = time.as_millis().clamp(0, LAST_MILLIS);
        let time = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        Self { start: period.start(Offset::UTC.to_datetime(time).date()), period }
    }

    /// When it begins.
    pub(crate) fn start(self) -> Timestamp {
        midnight(self.start)
    }

    /// When the next one begins.
    pub(crate) fn end(self) -> Timestamp {
        midnight(self.start.saturating_add(self.period.length(1)))
    }

    /// The one that began `count` periods before.
    pub(crate) fn earlier(self, count: u32) -> Self {
        Self { start: self.start.saturating_sub(self.period.length(count)), ..self }
    }

    /// Name of its file.
    pub(crate) fn file_name(self) -> String {
        let date = self.start;
        match self.period {
            Period::Daily => format!("logs-{date}.db"),
            Period::Weekly => {
                let week = date.iso_week_date();
                format!("logs-{:04}-w{:02}.db", week.year(), week.week())
            }
            Period::Monthly => format!("logs-{:04}-{:02}.db", date.year(), date.month()),
            Period::Yearly => format!("logs-{:04}.db", date.year()),
        }
    }

    /// Reads the name of a file; `None` for any other file.
    pub(crate) fn from_file_name(name: &str) -> Option<Self> {
        let text = name.strip_prefix("logs-")?.strip_suffix(".db")?;
        let parts: Vec<_> = text.split('-').collect();
        let (period, start) = match *parts.as_slice() {
            [year] => (Period::Yearly, Date::new(year.parse().ok()?, 1, 1).ok()?),
            [year, month] => {
                let year = year.parse().ok()?;
                match month.strip_prefix('w') {
                    Some(week) => {
                        let week = ISOWeekDate::new(year, week.parse().ok()?, Weekday::Monday);
                        (Period::Weekly, week.ok()?.date())
                    }
                    None => (Period::Monthly, Date::new(year, month.parse().ok()?, 1).ok()?),
                }
            }
            [year, month, day] => {
                let (month, day) = (month.parse().ok()?, day.parse().ok()?);
                (Period::Daily, Date::new(year.parse().ok()?, month, day).ok()?)
            }
            _ => return None,
        };
        let span = Self { start, period };
        // `logs-2026-1.db` is not a name that we give.
        (span.file_name() == name).then_some(span)
    }
}

fn midnight(date: Date) -> Timestamp {
    let time = Offset::UTC.to_timestamp(date.at(0, 0, 0, 0));
    Timestamp::from_millis(time.map_or(i64::MAX, |time| time.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn names_at_the_edges() {
        use Period::{Daily, Monthly, Weekly, Yearly};
        for (period, time, name) in [
            (Daily, "2026-11-24T00:00:00Z", "logs-2026-11-24.db"),
            (Daily, "2026-11-23T23:59:59.999Z", "logs-2026-11-23.db"),
            (Daily, "2028-02-29T12:00:00Z", "logs-2028-02-29.db"),
            (Weekly, "2026-11-23T00:00:00Z", "logs-2026-w48.db"),
            (Weekly, "2026-11-22T23:59:59.999Z", "logs-2026-w47.db"),
            // ISO 8601: the week of the first Thursday is week 1 of its year.
            (Weekly, "2027-01-01T00:00:00Z", "logs-2026-w53.db"),
            (Weekly, "2027-01-04T00:00:00Z", "logs-2027-w01.db"),
            (Weekly, "2024-12-30T00:00:00Z", "logs-2025-w01.db"),
            (Weekly, "2024-12-29T23:59:59.999Z", "logs-2024-w52.db"),
            (Monthly, "2026-12-01T00:00:00Z", "logs-2026-12.db"),
            (Monthly, "2026-11-30T23:59:59.999Z", "logs-2026-11.db"),
            (Yearly, "2026-12-31T23:59:59.999Z", "logs-2026.db"),
            (Yearly, "2027-01-01T00:00:00Z", "logs-2027.db"),
            (Yearly, "1969-12-31T23:59:59Z", "logs-1970.db"),
        ] {
            let span = Span::containing(period, at(time));
            assert_eq!(span.file_name(), name, "{time}");
            assert_eq!(Span::from_file_name(name), Some(span), "{name}");
        }
        for wild in [i64::MIN, i64::MAX] {
            let name = Span::containing(Monthly, Timestamp::from_millis(wild)).file_name();
            assert!(["logs-1970-01.db", "logs-9999-01.db"].contains(&&*name), "{name}");
        }
    }

    #[test]
    fn other_files_are_not_ours() {
        for name in [
            "logs-2026-1.db",
            "logs-2026-13.db",
            "logs-2026-02-30.db",
            "logs-2025-w53.db",
            "logs-2026-w00.db",
            "logs-2026-11.db-wal",
            "logs-2026-11-24-01.db",
            "logs-.db",
            "logs--2026.db",
            "posthaste.db",
            "logs-2026.db.old",
        ] {
            assert_eq!(Span::from_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn earlier_counts_whole_periods() {
        for (period, count, name) in [
            (Period::Daily, 1, "logs-2026-12-31.db"),
            (Period::Weekly, 1, "logs-2026-w52.db"),
            (Period::Monthly, 13, "logs-2025-12.db"),
            (Period::Yearly, 3, "logs-2024.db"),
        ] {
            let span = Span::containing(period, at("2027-01-01T00:00:00Z"));
            assert_eq!(span.earlier(count).file_name(), name);
            assert_eq!(span.earlier(0), span);
            // However many are asked for, it neither fails nor wraps.
            assert!(span.earlier(u32::MAX) < span);
        }
    }

    proptest! {
        #[test]
        fn spans_tile_time(millis in 0..LAST_MILLIS, period in prop::sample::select(vec![
            Period::Daily, Period::Weekly, Period::Monthly, Period::Yearly,
        ])) {
            let time = Timestamp::from_millis(millis);
            let span = Span::containing(period, time);
            prop_assert!(span.start() <= time && time < span.end());
            prop_assert_eq!(Span::from_file_name(&span.file_name()), Some(span));
            let next = Span::containing(period, span.end());
            prop_assert!(next == span || next.start() == span.end());
            prop_assert_eq!(next.earlier(1) == span, next != span);
        }
    }
}
