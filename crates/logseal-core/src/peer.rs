//! Who is at the other end of a connection.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The address that a connection comes from. Listeners put it beside each request.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Peer(IpAddr);

impl Peer {
    /// The peer at `address`.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self(address.ip().to_canonical())
    }

    /// A peer of which the system does not say where it is, as when it is gone already.
    #[must_use]
    pub fn unknown() -> Self {
        Self(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }

    /// What peers are told apart by: the address, and of IPv6 its first 64 bits, since the others are the client's to choose (RFC 4291,
    /// section 2.5.4).
    #[must_use]
    pub fn network(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        }
    }

    /// The address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0
    }
}

/// Whether a credential that opens something was ever presented on a connection. Listeners put it beside each request, and whoever looks at
/// credentials says so here: where there is no place for all connections, those without one give way first.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<AtomicBool>);

impl Standing {
    /// A credential was presented, and it is good.
    pub fn prove(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether one was.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_told_apart_by_what_they_cannot_choose() {
        let network = |address: &str| Peer::new(address.parse().expect("an address")).network().to_string();
        assert_eq!(network("192.0.2.7:1"), "192.0.2.7");
        assert_eq!(network("[::ffff:192.0.2.7]:9"), "192.0.2.7");
        assert_eq!(network("[2001:db8:1:2:3:4:5:6]:1"), "2001:db8:1:2::");
        assert_eq!(network("[2001:db8:1:2:ffff::]:2"), "2001:db8:1:2::");
    }
}
