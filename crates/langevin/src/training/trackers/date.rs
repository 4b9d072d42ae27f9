//! Now, as trackers write it.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment, in the time of Greenwich.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Seconds since 1970.
    pub seconds: u64,
    /// And nanoseconds.
    pub nanos: u32,
}

impl Moment {
    /// This one.
    pub(super) fn now() -> Self {
        // A clock before 1970 is one that was never set.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            seconds: since.as_secs(),
            nanos: since.subsec_nanos(),
        }
    }

    /// Seconds since 1970 with their fraction.
    pub(super) fn as_f64(self) -> f64 {
        self.seconds as f64 + f64::from(self.nanos) * 1e-9
    }

    /// `20260131_235959`.
    pub(super) fn compact(self) -> String {
        let [year, month, day] = self.civil();
        let [hour, minute, second] = self.clock();
        format!("{year:04}{month:02}{day:02}_{hour:02}{minute:02}{second:02}")
    }

    /// `2026-01-31T23:59:59Z`.
    pub(super) fn iso(self) -> String {
        let [year, month, day] = self.civil();
        let [hour, minute, second] = self.clock();
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    fn clock(self) -> [u64; 3] {
        let of_day = self.seconds % 86_400;
        [of_day / 3600, of_day / 60 % 60, of_day % 60]
    }

    /// Year, month and day, counted in eras of 400 years that begin in March, where the leap day is the last.
    fn civil(self) -> [u64; 3] {
        let days = self.seconds / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        [era * 400 + year_of_era + u64::from(month <= 2), month, day]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        // From Python's datetime.fromtimestamp(seconds, timezone.utc).
        for (seconds, iso) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Moment { seconds, nanos: 0 }.iso(), iso);
        }
        let moment = Moment {
            seconds: 951_868_799,
            nanos: 0,
        };
        assert_eq!(moment.compact(), "20000229_235959");
    }
}
