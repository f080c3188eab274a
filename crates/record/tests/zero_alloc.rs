//! Recording a cycle touches no heap: a counting allocator watches the guard's side.

#[path = "../../kernels/tests/common/counting.rs"]
mod counting;
use counting::operations_here;
use ganglion_guard::*;
use ganglion_record::{About, Options, Writer, fingerprint};
use ganglion_site::{Sentence, Site, TagValues};
use std::path::Path;

#[test]
fn no_recorded_cycle_touches_the_heap() {
    let text = include_str!("../../../examples/hvac/site.toml");
    let site = Site::parse(text, Path::new("site.toml")).unwrap();
    let folder = std::env::temp_dir().join(format!("ganglion-record-heap-{}", std::process::id()));
    let mut guard = Guard::new(&site).unwrap();
    let options = Options {
        folder: folder.clone(),
        everything: true,
        keep_text: false,
        size_bytes_max: 8 << 20,
        flight_us: 1_000_000,
    };
    let about = About {
        site_file: "site.toml".into(),
        site: (text.into(), fingerprint(text)),
        models: Vec::new(),
        dry_run: false,
    };
    let (mut tape, writer) = Writer::start(&guard, options, about, || 0).unwrap();
    let (mut heap, mut records) = (0, 0);
    for cycle in 0..600u64 {
        // Room for the writer to keep up, outside of what is counted.
        if cycle.is_multiple_of(50) {
            std::thread::sleep(std::time::Duration::from_millis(120));
        }
        let now = 1_000_000 + cycle * 100_000;
        let samples: Vec<_> = site.tags.iter().map(|_| TagSample::good((cycle % 2) as f64, now)).collect();
        let event = cycle.is_multiple_of(3).then(|| Request {
            id: cycle,
            source: Source::Http,
            client: 1,
            sentence: Sentence::cut("set the kitchen to 21 degrees"),
            tags: TagValues::NONE,
            deadline_ms: None,
            dry_run: false,
            stream: true,
            command: None,
            others: 0,
        });
        let input = Input {
            tags: &samples,
            link: Link { connected: cycle % 100 > 5, watchdog: DeviceWatchdog::Armed, heartbeat_ack_us: now },
            sole_writer: true,
            event: event.as_ref(),
            decisions: &[ganglion_site::Decision::SIGN_OF_LIFE],
            progress: &[],
            brain: BrainProcess::Running { generation: 1 },
            operator: [Some(OperatorCommand::Reset), Some(OperatorCommand::Start), None]
                [(cycle % 3) as usize],
            estop: false,
        };
        let before = operations_here();
        tape.begins(&guard, now, &input);
        let seen = guard.cycle(now, &input).seen();
        tape.ends(&seen);
        heap += operations_here() - before;
        records += seen.records.len();
    }
    assert_eq!(heap, 0, "heap operations in 600 recorded cycles");
    assert!(records > 100, "{records}");
    assert_eq!(writer.health().lost_cycles(), 0);
    drop(writer);
    assert!(std::fs::remove_dir_all(&folder).is_ok(), "something was written");
}
