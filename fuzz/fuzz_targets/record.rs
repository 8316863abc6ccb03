//! The operations of a frame.

#![no_main]

use libfuzzer_sys::fuzz_target;
use posthaste_broker::embedded::fuzz;

fuzz_target!(|bytes: &[u8]| {
    fuzz::record(bytes);
});
