//! What `delay`, `schedule` and `expires_at` mean at a given moment.

use std::time::Duration;

use posthaste_model::Timestamp;

use crate::{
    config::Limits,
    errors::{Errors, code},
};

/// Until when nothing is handed to an SMTP client; `None`: at once.
///
/// With both, `schedule` is ignored (UC2). A schedule that is slightly past
/// means now; one that is long past is an error, since it is most often a
/// wrong unit or a wrong year.
pub(crate) fn due(
    delay: Option<Duration>,
    schedule: Option<Timestamp>,
    now: Timestamp,
    limits: &Limits,
    errors: &mut Errors,
) -> Option<Timestamp> {
    if let Some(delay) = delay {
        return (!delay.is_zero()).then(|| now.plus(delay));
    }
    let schedule = schedule?;
    if schedule <= now {
        if now.since(schedule) > limits.schedule_behind {
            errors.add(
                "/schedule",
                code::SCHEDULE_IN_PAST,
                format_args!(
                    "is {schedule}, more than {} s in the past; a Unix time is in seconds",
                    limits.schedule_behind.as_secs()
                ),
            );
        }
        return None;
    }
    if schedule.since(now) > limits.schedule_ahead {
        errors.add(
            "/schedule",
            code::SCHEDULE_TOO_FAR,
            format_args!(
                "is {schedule}, more than {} days ahead; a Unix time is in seconds",
                limits.schedule_ahead.as_secs() / 86_400
            ),
        );
        return None;
    }
    Some(schedule)
}

/// Checks that there is time left between `due` (or now) and the expiry.
pub(crate) fn check_expiry(
    expires_at: Option<Timestamp>,
    due: Option<Timestamp>,
    now: Timestamp,
    errors: &mut Errors,
) {
    let Some(expires_at) = expires_at else { return };
    if expires_at <= now {
        errors.add(
            "/expires_at",
            code::EXPIRES_IN_PAST,
            format_args!("is {expires_at}, which has passed"),
        );
    } else if let Some(due) = due
        && expires_at <= due
    {
        errors.add(
            "/expires_at",
            code::EXPIRES_BEFORE_DUE,
            format_args!("is {expires_at}, not after {due}, when the message is due"),
        );
    }
}
