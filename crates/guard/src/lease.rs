//! One writer per plant: while one process of this machine has a plant's lease, no other guard writes to it.
//!
//! The lease is a socket bound to a name made of the plant's address, in Linux's abstract namespace (`unix(7)`). The
//! kernel keeps names unique and frees one when its process ends, however it ends; there is no file to be left behind.
//! Machines and network namespaces have names of their own: two of them are not kept apart.

use crate::limits::LEASE_RETRY_US;
use ganglion_site::{Micros, PlantSpec};
use std::net::ToSocketAddrs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The right to write to one plant, or the wish for it.
#[derive(Debug)]
pub(crate) struct Lease {
    name: String,
    socket: Option<UnixDatagram>,
    retry_us: Micros,
}

impl Lease {
    /// Not taken yet. The plant's host name is resolved here, once, so that two names of one address are one plant.
    pub fn new(plant: &PlantSpec) -> Self {
        Self { name: name(plant), socket: None, retry_us: 0 }
    }

    /// Whether this process has the lease; tries to take it, once a second. Two system calls that do not wait, no heap.
    pub fn held(&mut self, now: Micros) -> bool {
        if self.socket.is_none() && now >= self.retry_us {
            self.retry_us = now + LEASE_RETRY_US;
            let address = SocketAddr::from_abstract_name(&self.name);
            self.socket = address.and_then(|address| UnixDatagram::bind_addr(&address)).ok();
        }
        self.socket.is_some()
    }
}

/// Within the 107 bytes that an abstract name may have.
fn name(plant: &PlantSpec) -> String {
    let resolved = plant.modbus.to_socket_addrs().ok().and_then(|mut all| all.next());
    let address = resolved.map_or_else(|| plant.modbus.clone(), |address| address.to_string());
    // FNV-1a, 64 bits: names of any length, and every byte counts.
    let hash = address
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let shown: String = address.chars().filter(char::is_ascii).take(64).collect();
    format!("ganglion/plant/{shown}/{}/{hash:016x}", plant.unit)
}
