//! Ports on loopback for what a trial starts.
//!
//! They are taken from below the range from which Linux gives outgoing
//! connections their port, so that a port which is free now is not taken by
//! some client before its server binds it.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::net::TcpStream;

const FIRST: u32 = 20_000;
const COUNT: u32 = 10_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A loopback address whose port nobody has, for TCP and for UDP.
///
/// # Errors
/// When the whole range is taken.
pub fn free() -> Result<SocketAddr> {
    // Processes begin at places of their own, so that two test runs side by
    // side hardly ever try the same port.
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let number = FIRST + start.wrapping_add(step) % COUNT;
        let Ok(number) = u16::try_from(number) else { continue };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, number));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

/// Waits until something accepts connections at `address`.
///
/// # Errors
/// When nothing does within the time.
pub async fn wait(address: SocketAddr, within: Duration) -> Result<()> {
    let end = Instant::now() + within;
    while TcpStream::connect(address).await.is_err() {
        if Instant::now() > end {
            bail!("nothing listens at {address} after {within:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
