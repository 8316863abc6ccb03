//! What the system knows about a process: CPU time, memory and open
//! connections, from `/proc`; and what a directory takes on the disk.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The kernel counts CPU time for `/proc` in hundredths of a second on every
/// architecture that matters here (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// CPU time of the process so far, user and system, all its threads.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    cpu_time_of(&stat).with_context(|| format!("cannot read the CPU time from {stat:?}"))
}

fn cpu_time_of(stat: &str) -> Option<Duration> {
    // The name in parentheses may hold spaces; fields count from behind it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.checked_add(system)?)
}

/// Waits until the process has used no more than a tick of CPU time for half a
/// second: it has nothing left to do.
///
/// # Errors
/// When that takes more than two minutes, or the process ends.
pub async fn wait_until_idle(pid: u32) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(120);
    let mut before = cpu_time(pid)?;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = cpu_time(pid)?;
        if now.saturating_sub(before) <= TICK {
            return Ok(());
        }
        before = now;
    }
    bail!("process {pid} does not come to rest")
}

/// The most memory that the process has had resident, in bytes.
///
/// # Errors
/// When there is no such process.
pub fn peak_rss(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    memory_of(&status, "VmHWM:").context("no VmHWM in the status of the process")
}

/// The memory that the process has resident now, in bytes.
///
/// # Errors
/// When there is no such process.
pub fn rss(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    memory_of(&status, "VmRSS:").context("no VmRSS in the status of the process")
}

fn memory_of(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// What the files of a directory take on the disk, in bytes. It has no
/// directories in it; files that go meanwhile count nothing.
///
/// # Errors
/// When the directory cannot be read.
pub fn disk_usage(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        if let Ok(found) = entry?.metadata() {
            // In units of 512 bytes, whatever the file system's block.
            bytes += found.blocks() * 512;
        }
    }
    Ok(bytes)
}

/// How many connections the server at `address` (IPv4) has open.
///
/// # Errors
/// When the kernel's table cannot be read.
pub fn open_connections(address: SocketAddr) -> Result<usize> {
    let table = fs::read_to_string("/proc/net/tcp")?;
    Ok(open_connections_in(&table, address.port()))
}

fn open_connections_in(table: &str, port: u16) -> usize {
    let port = format!(":{port:04X}");
    let is_open = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, state) = (fields.next(), fields.next(), fields.next());
        // 01 is established; 08 is closed by the peer and not yet by the server.
        local.is_some_and(|local| local.ends_with(&port)) && matches!(state, Some("01" | "08"))
    };
    table.lines().skip(1).filter(is_open).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(cpu_time_of(stat), Some(Duration::from_secs(2)));
        assert_eq!(memory_of("VmPeak: 9 kB\nVmHWM:\t   12 kB\n", "VmHWM:"), Some(12 * 1024));
        let table = "  sl  local_address rem_address   st\n\
                     0: 0100007F:09DD 00000000:0000 0A 0\n\
                     1: 0100007F:09DD 0100007F:E000 01 0\n\
                     2: 0100007F:E000 0100007F:09DD 01 0\n\
                     3: 0100007F:09DD 0100007F:E001 06 0\n\
                     4: 0100007F:09DD 0100007F:E002 08 0\n";
        assert_eq!(open_connections_in(table, 0x09DD), 2);
    }

    #[test]
    fn reads_this_process() {
        assert!(cpu_time(std::process::id()).is_ok());
        assert!(peak_rss(std::process::id()).unwrap() > 0);
        assert!(rss(std::process::id()).unwrap() > 0);
    }

    #[test]
    fn reads_what_a_directory_takes() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), vec![1; 100_000]).unwrap();
        fs::File::create(dir.path().join("hole")).unwrap().set_len(1 << 40).unwrap();
        let bytes = disk_usage(dir.path()).unwrap();
        assert!((90_000..1 << 20).contains(&bytes), "{bytes}");
    }
}
