//! Ports for servers that must be told one before they run. Several crates' tests take this file in by its path.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering},
    },
};

/// Below the range that the kernel takes the ports of outgoing connections from (32768 and up): none of them sits on
/// such a port, and a client of a server that is not there never meets itself.
const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;

/// The same ports of UDP, which none of our servers uses: who holds one has claimed that of TCP, to the process's end.
static CLAIMS: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 that nobody listens on, and that no other test is given while this process lives: a server that
/// is started on it later, or again, finds it free.
pub(crate) fn free() -> SocketAddr {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // Test processes begin at different places, so that they need not step over each other's.
    let start = (std::process::id().wrapping_mul(37) % u32::from(COUNT)) as u16;
    loop {
        let offset = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + offset));
        let Ok(claim) = UdpSocket::bind(addr) else { continue };
        if TcpListener::bind(addr).is_ok() {
            CLAIMS.lock().expect("nobody panics with it").push(claim);
            return addr;
        }
    }
}
