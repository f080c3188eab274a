//! One writer per plant: while one process of this machine has a plant's lease, no other gets it.
//!
//! The lease is a socket bound to a name made of the plant's address, in Linux's abstract namespace (`unix(7)`). The
//! kernel keeps names unique and frees one when its process ends, however it ends; there is no file to be left behind.
//! Machines and network namespaces have names of their own: two of them are not kept apart.

use crate::error::GuardError;
use ganglion_site::PlantSpec;
use std::io::ErrorKind;
use std::net::ToSocketAddrs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The right to write to one plant, until it is dropped.
#[derive(Debug)]
pub struct PlantLease {
    _socket: UnixDatagram,
}

impl PlantLease {
    /// Takes the lease. Names are resolved first, so that two names of one address are one plant.
    ///
    /// # Errors
    /// [`GuardError::PlantInUse`] when another process has it, [`GuardError::Os`] when the system refuses the socket.
    pub fn take(plant: &PlantSpec) -> Result<Self, GuardError> {
        let os = |source| GuardError::Os { what: "taking the plant's lease", source };
        let address = SocketAddr::from_abstract_name(name(plant)).map_err(os)?;
        match UnixDatagram::bind_addr(&address) {
            Ok(socket) => Ok(Self { _socket: socket }),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                Err(GuardError::PlantInUse { plant: plant.modbus.clone(), unit: plant.unit })
            }
            Err(error) => Err(os(error)),
        }
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
