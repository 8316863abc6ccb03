//! The cases, one a file.

pub mod crash_loop;
mod evidence;
pub mod load;
