//! What Posthaste does, seen from outside: the real binary with a configuration
//! file, submissions over HTTP, and servers that receive. One file a behaviour.
//!
//! All of them are modules of one test binary, since each further binary would
//! be linked for itself.

mod aiosmtpd_receives;
mod bad_config_is_explained;
mod cc_and_bcc_privacy;
mod deferred_then_delivered;
mod kill_loses_nothing;
mod null_mx;
mod pages_in_a_browser;
mod postfix_receives_with_tls;
mod purged_is_undeliverable;
mod queue_command;
mod refused_is_undeliverable;
mod restart_keeps_everything;
mod scheduled_is_not_early;
mod second_process_is_refused;
mod send_command;
mod support;
mod tokens_scope;
