//! One file per subcommand; each has its `Arguments` and a `run`.

pub mod ask;
pub mod audit;
pub mod bench;
pub mod brain;
pub mod calibrate;
mod calibration;
pub mod check;
pub mod doctor;
pub mod export;
pub mod factorize;
mod files;
pub mod generate;
pub mod measure;
mod meter;
pub mod mission;
pub mod model;
pub mod optimize;
pub mod plant;
pub mod prune;
pub mod quantize;
pub mod replay;
pub mod run;
