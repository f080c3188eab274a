//! Speed of the matrix product by format, tokens and instruction set:
//! `cargo run --release -p ganglion-kernels --example matmul`.

use ganglion_kernels::*;
use std::hint::black_box;
use std::time::Instant;

fn main() -> Result<(), KernelError> {
    let (rows, k) = (768, 768);
    println!("{rows} x {k}, 1 thread; giga multiply-adds a second");
    println!("{:8} {:7} {:>8} {:>8} {:>8}", "isa", "format", "1 token", "12", "256");
    let weights: Vec<f32> = (0..rows * k).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
    let pool = Pool::new(1)?;
    for isa in Isa::available() {
        for format in
            [BlockFormat::F32, BlockFormat::F16, BlockFormat::Bf16, BlockFormat::Q8_0, BlockFormat::Q4_0]
        {
            let mut bytes = vec![0; format.size_bytes(rows * k).unwrap_or(0)];
            quantize(format, &weights, &mut bytes)?;
            let matrix = Matrix::pack("w", format, rows, k, &bytes)?;
            print!("{:8} {:7}", isa.name(), format!("{format:?}"));
            for tokens in [1, 12, 256] {
                let x = vec![0.5; tokens * k];
                let mut buffer = ActivationBuffer::new(tokens, k);
                buffer.quantize(isa, &pool, &x, tokens, k);
                let mut out = vec![0.0; tokens * rows];
                let (mut runs, start) = (0usize, Instant::now());
                while runs == 0 || start.elapsed().as_millis() < 150 {
                    matmul(isa, &pool, &Input::new(&x, &buffer), &mut [(&matrix, &mut out)]);
                    black_box(&mut out);
                    runs += 1;
                }
                let work = (runs * tokens * rows * k) as f64;
                print!(" {:8.1}", work / start.elapsed().as_secs_f64() / 1e9);
            }
            println!();
        }
    }
    Ok(())
}
