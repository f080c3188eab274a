//! Every bound of the simulated plants, in one place.

/// Clients connected at once; one more is closed right after it is accepted.
pub const CLIENTS_MAX: usize = 32;
/// A started frame must be complete within so long, else its connection is closed.
pub const FRAME_MS_MAX: u64 = 5_000;
/// Bytes of a Modbus PDU (MODBUS Application Protocol V1.1b3, section 4.1).
pub const PDU_BYTES_MAX: usize = 253;
/// Registers of one read (functions 3 and 4).
pub const READ_REGISTERS_MAX: u16 = 125;
/// Registers of one write (function 16).
pub const WRITE_REGISTERS_MAX: u16 = 123;
/// Coils or discrete inputs of one read (functions 1 and 2).
pub const READ_BITS_MAX: u16 = 2000;
/// Coils of one write (function 15).
pub const WRITE_BITS_MAX: u16 = 1968;
/// How often real time is handed to the model.
pub const TICK_MS: u64 = 10;
/// One step of the model, in milliseconds of model time.
pub const STEP_MS: u32 = 100;
/// Steps made up for in one call; a host that slept longer loses the rest.
pub const STEPS_PER_ADVANCE_MAX: u32 = 10_000;
/// Fastest model time against real time.
pub const SPEED_MAX: f64 = 3_600.0;
/// Parts that a CSV file may hold.
pub const PARTS_MAX: usize = 1_000_000;
