//! The plan that is shown before a model is loaded is what is then taken.

#[path = "../../kernels/tests/common/counting.rs"]
mod counting;
use counting::live_bytes;
use ganglion_decide::limits::VOCABULARY_BYTES;
use ganglion_decide::{Decider, LoadedModel, Options, memory_plan};
use ganglion_gguf::Gguf;
use ganglion_grammar::Engine;
use ganglion_site::Site;
use ganglion_tokenizer::Tokenizer;
use std::path::Path;
use std::sync::Arc;

// The only test of this file: another one would allocate in between.
#[test]
fn the_plan_is_what_is_taken() {
    for name in ["hvac", "conveyor"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
        for (parallel, context_tokens) in [(1, 640), (4, 1024)] {
            let mut site = Site::load(&folder).unwrap();
            (site.model.parallel, site.model.context_tokens) = (parallel, context_tokens);
            let site = Arc::new(site);
            let gguf = Gguf::open(&site.model.path).unwrap();
            let plan = memory_plan(&site, &gguf).unwrap();
            let before = live_bytes();
            let model = LoadedModel::new(&gguf, site.model.threads).unwrap();
            let decider = Decider::new(Arc::clone(&site), &model, Options::default()).unwrap();
            let taken = live_bytes() - before;
            let planned = plan.total_bytes() as f64;
            assert!(
                (0.95..1.05).contains(&(taken as f64 / planned)),
                "{name} {parallel}: {taken} of {planned}"
            );
            drop(decider);
        }
    }
    let shared = std::env::var_os("GANGLION_SHARED").map(|shared| Path::new(&shared).join("data/vocab"));
    let Some(folder) = shared.filter(|folder| folder.is_dir()) else {
        println!("skipped: no vocabularies without $GANGLION_SHARED");
        return;
    };
    for name in ["gpt-2", "llama-spm", "qwen2"] {
        let gguf = Gguf::open(folder.join(format!("ggml-vocab-{name}.gguf"))).unwrap();
        let before = live_bytes();
        let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf).unwrap());
        let tokens = tokenizer.vocab_size();
        let _engine = Engine::new(tokenizer).unwrap();
        let each = (live_bytes() - before) / tokens;
        assert!(each.abs_diff(VOCABULARY_BYTES) < VOCABULARY_BYTES / 4, "{name}: {each} bytes a token");
    }
}
