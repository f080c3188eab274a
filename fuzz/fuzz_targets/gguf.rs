//! Any bytes: a parsed file or an error. `cargo +nightly fuzz run gguf -- -rss_limit_mb=512`
#![no_main]

use ganglion_gguf::Gguf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(gguf) = Gguf::parse(bytes) {
        for tensor in gguf.tensors() {
            let data = gguf.tensor_bytes(&tensor.name).expect("a listed tensor");
            assert_eq!(data.len() as u64, tensor.size_bytes);
        }
    }
});
