//! Speed and error of the search for a trellis format's symbols, on normal values:
//! `cargo run --release -p ganglion-kernels --example trellis [TILES [ISA]]`.

use ganglion_kernels::{BlockFormat, Isa, TrellisSearch};
use std::time::Instant;

const SIZE: usize = TrellisSearch::ROWS;

/// Normal values by the sum of twelve uniform ones (variance 1).
fn normal(state: &mut u64) -> f32 {
    let mut uniform = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..12).map(|_| uniform()).sum::<f32>() - 6.0
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tiles: usize = std::env::args().nth(1).map_or(Ok(40), |text| text.parse())?;
    println!("1 thread, {tiles} tiles of 256 weights; error as a share of the variance");
    println!("{:8} {:7} {:>10} {:>10}", "isa", "format", "us/weight", "error");
    let name = std::env::args().nth(2);
    for isa in Isa::available() {
        if name.as_ref().is_some_and(|name| name != isa.name()) {
            continue;
        }
        for format in [BlockFormat::T2, BlockFormat::T3, BlockFormat::T4] {
            let Some(mut search) = TrellisSearch::new(isa, format) else { continue };
            let mut block = vec![0; format.block_bytes()];
            let scale = search.put_scale(1.0, &mut block)?;
            let (mut state, mut error) = (7, 0.0);
            let start = Instant::now();
            for _ in 0..tiles {
                let target = [[0.0f32; SIZE]; SIZE].map(|row| row.map(|_| normal(&mut state) / scale));
                let codes = search.put_tile(&target, &[1.0; SIZE], &mut block, 0);
                let pairs = target.iter().flatten().zip(codes.iter().flatten());
                error += pairs.map(|(t, c)| f64::from((t - f32::from(*c)) * scale).powi(2)).sum::<f64>();
            }
            let weights = (tiles * SIZE * SIZE) as f64;
            let took = start.elapsed().as_secs_f64() * 1e6 / weights;
            println!("{:8} {:7} {took:10.2} {:10.5}", isa.name(), format!("{format:?}"), error / weights);
        }
    }
    Ok(())
}
