//! The automaton changes no command: with it and with llguidance's masks the same comes out.

use ganglion_decide::{Decider, LoadedModel, Options};
use ganglion_gguf::Gguf;
use ganglion_site::{Event, Sentence, Site};
use std::path::Path;
use std::sync::Arc;

#[test]
fn the_same_commands_come_out_with_either_masks() {
    for name in ["hvac", "conveyor"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
        let site = Arc::new(Site::load(&folder).unwrap());
        let model = LoadedModel::new(&Gguf::open(&site.model.path).unwrap(), 2).unwrap();
        let mut decider = Decider::new(Arc::clone(&site), &model, Options::PLAIN).unwrap();
        assert!(decider.grammar().automaton().is_ok());
        let sentences = std::fs::read_to_string(folder.join("events.txt")).unwrap();
        let numbers = ["-7", "0", "5.5", "19.5", "21.0", "22.50", "35", "99", "100", "1e1"];
        let numbers = numbers.map(|number| format!("set the hall to {number}")).join("\n");
        let mut asked = 0;
        for (sentence, epoch) in sentences.lines().chain(numbers.lines()).zip(1..) {
            let mut event = Event::new(epoch, u64::MAX);
            event.sentence = Sentence::cut(sentence);
            decider.mask_generally(false);
            let table = decider.decide(&event, &mut || 0);
            decider.mask_generally(true);
            let general = decider.decide(&event, &mut || 0);
            assert_eq!(table.command, general.command, "{name}: {sentence:?}");
            // Fewer choices at numbers, never more.
            let choices = |timings: ganglion_site::Timings| timings.predicted_n - timings.forced_n;
            assert!(choices(table.timings) <= choices(general.timings), "{name}: {sentence:?}");
            asked += 1;
        }
        assert!(asked > 20, "{asked} sentences");
    }
}
