//! Simulated plants behind a real Modbus TCP server, to develop and test against without hardware.
//!
//! Data flow: client bytes → frame → registers of a [`Plant`] ← its process model, advanced by the time the server
//! hands in. Each plant has its own comms watchdog, as field devices do: armed, it takes the plant to its safe state
//! when the heartbeat register stops changing, whatever became of the process that commanded it.
//!
//! ```
//! use ganglion_plant::Plant;
//!
//! let mut plant = Plant::hvac(1);
//! plant.write_holding(0, &[230])?; // kitchen: 23.0 C
//! plant.write_holding(10, &[1])?; // heat
//! plant.advance(0, 3_600_000_000); // one hour of model time
//! assert!(plant.input(0)? > 200);
//! # Ok::<(), ganglion_plant::Exception>(())
//! ```
//!
//! What it does not do: print, know the site file, or claim to be a validated building or machine model; the physics
//! are first order, good enough to see a decision's effect.

mod conveyor;
mod device;
mod error;
mod hvac;
mod inspection;
pub mod limits;
mod noise;
mod parts;
mod server;

pub use device::{Exception, HEARTBEAT, Plant, WATCHDOG_MS, WATCHDOG_STATE, WatchdogState};
pub use error::Error;
pub use parts::{Part, load_parts};
pub use server::{Options, PlantKind, Server, serve};
