//! The agent on the example site, with the simulated robot in its hands and a clock of the test's own.

use super::*;
use ganglion_guard::register_writes;
use ganglion_plan::Solver;
use ganglion_plant::Plant;
use ganglion_site::{ReadTable, WriteTarget};
use std::path::PathBuf;

/// Model time between two looks.
const TICK_US: u64 = 500_000;

struct Bench {
    site: Arc<Site>,
    plant: Plant,
    now_us: u64,
    mode: Mode,
    words: Vec<Word>,
    sent: Vec<String>,
    outranked: Option<String>,
    /// What happens when so many commands have been sent.
    at: Vec<(usize, Event)>,
    refuse_next: bool,
    losses: u64,
    /// Until then nothing is read; the guard notices a tick later.
    lost_until_us: u64,
    refusals: u32,
}

enum Event {
    Heat(u16),
    Hold,
    Stop,
    Operator,
    Refuse,
    /// So many times the guard takes nothing but the safe command, for the moment.
    RefuseForNow(u32),
    /// The robot is told to stop by somebody else.
    Halt,
    /// Another policy is taken over: the battery's limit, and what is safe.
    Reload(f64, Box<Command>),
    /// Its watchdog trips: it stops by itself, and the guard holds for a while.
    Lose,
}

impl Bench {
    fn new(at: Vec<(usize, Event)>) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/inspection");
        let mut site = Site::load(&path).unwrap_or_else(|error| panic!("{error}"));
        site.plan.as_mut().unwrap().budget_ms = 10_000;
        // Here model time is all the time there is.
        site.plant.as_mut().unwrap().simulator_speed = 1.0;
        Self {
            site: Arc::new(site),
            plant: Plant::inspection(5),
            now_us: 1_000_000,
            mode: Mode::Execute,
            words: Vec::new(),
            sent: Vec::new(),
            outranked: None,
            at,
            refuse_next: false,
            losses: 0,
            lost_until_us: 0,
            refusals: 0,
        }
    }

    fn run(&mut self, instruction: &str, dry_run: bool) -> Result<Outcome, Failure> {
        let site = Arc::clone(&self.site);
        // Without the program every test here still has its answer; those that need it ask first.
        let mut planner = Planner::new(&site, Solver::PROGRAM.as_ref()).unwrap();
        Agent::new(&site, &mut planner, self).run(instruction, dry_run)
    }

    fn states(&self) -> String {
        let mut names: Vec<&str> = self.words.iter().map(|word| word.state.as_str()).collect();
        names.dedup();
        names.join(" ")
    }

    fn said(&self, what: &str) -> bool {
        self.words.iter().any(|word| word.text.contains(what))
    }
}

fn raw_of(plant: &Plant, table: ReadTable, address: u16) -> f64 {
    match table {
        ReadTable::Input => f64::from(plant.input(address).unwrap().cast_signed()),
        ReadTable::Holding => f64::from(plant.holding(address).unwrap().cast_signed()),
        ReadTable::Discrete => f64::from(u8::from(plant.discrete(address).unwrap())),
        ReadTable::Coil => f64::from(u8::from(plant.coil(address).unwrap())),
    }
}

impl Hands for Bench {
    /// A clause is a command's words, as `Command::describe` gives them.
    fn decide(&mut self, clause: &str) -> Result<Command, String> {
        let mut words = clause.split(' ');
        let mut json = format!("{{\"action\":\"{}\"", words.next().unwrap());
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            json += &format!(",\"{name}\":\"{value}\"");
        }
        Command::from_json(&self.site, &(json + "}"))
            .map_err(|_| "no command of the site answers this".into())
    }

    fn act(&mut self, command: &Command) -> Result<u64, Refused> {
        if std::mem::take(&mut self.refuse_next) {
            return Err(Refused::because("a limit".into()));
        }
        if self.refusals > 0 && *command != self.site.safe {
            self.refusals -= 1;
            return Err(Refused { why: "the rule controller is in control".into(), for_now: true });
        }
        for write in register_writes(&self.site, command).unwrap().iter() {
            assert_eq!(write.target, WriteTarget::Holding);
            let written = self.plant.write_holding(write.address, &[write.raw]);
            written.map_err(|e| Refused::because(format!("the plant did not take it: {e:?}")))?;
        }
        self.sent.push(command.describe(&self.site));
        let count = self.sent.len();
        while let Some(place) = self.at.iter().position(|(at, _)| *at == count) {
            match self.at.remove(place).1 {
                Event::Heat(raw) => self.plant.write_holding(40, &[raw]).unwrap(),
                Event::Halt => self.plant.write_holding(2, &[1]).unwrap(),
                Event::Reload(lo, safe) => {
                    let mut site = Site::clone(&self.site);
                    site.limits.iter_mut().for_each(|limit| limit.lo = Some(lo));
                    site.safe = *safe;
                    self.site = Arc::new(site);
                }
                Event::Lose => {
                    self.plant.write_holding(2, &[1]).unwrap();
                    (self.losses, self.lost_until_us) = (self.losses + 1, self.now_us + 20_000_000);
                }
                Event::Hold => self.mode = Mode::Held,
                Event::Stop => self.mode = Mode::Stopping,
                Event::Operator => self.outranked = Some("a command of the operator".into()),
                Event::RefuseForNow(times) => self.refusals = times,
                Event::Refuse => self.refuse_next = true,
            }
        }
        Ok(self.now_us)
    }

    fn readings(&self, since_us: u64) -> Start {
        let mut start = Start::UNKNOWN;
        // Each look is one poll: what was polled before the command is not shown.
        if self.now_us >= self.lost_until_us && (self.now_us > since_us || since_us == 0) {
            for (index, tag) in self.site.tags.iter().enumerate() {
                let read = tag.read.unwrap();
                start.set(index, raw_of(&self.plant, read.table, read.address) * read.scale);
            }
        }
        start
    }

    fn link_losses(&self) -> u64 {
        self.losses
    }

    fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site)
    }

    fn mode(&self) -> Option<Mode> {
        Some(self.mode)
    }

    fn outranked(&self) -> Option<String> {
        self.outranked.clone()
    }

    fn say(&mut self, word: &Word) {
        self.words.push(word.clone());
    }

    fn now_us(&self) -> u64 {
        self.now_us
    }

    fn pause(&mut self) {
        if self.lost_until_us > 0 {
            self.mode = if self.now_us < self.lost_until_us { Mode::Held } else { Mode::Execute };
            self.lost_until_us *= u64::from(self.mode == Mode::Held);
        }
        self.now_us += TICK_US;
        self.plant.advance(0, TICK_US);
        if self.mode == Mode::Held && self.now_us.is_multiple_of(60_000_000) {
            self.mode = Mode::Execute;
        }
    }
}

const TOUR: &str = "photograph valve=valve_2 and photograph valve=valve_4, then return_home";

#[test]
fn a_mission_goes_through_its_states_and_the_robot_does_the_work() {
    let mut bench = Bench::new(Vec::new());
    assert_eq!(bench.run(TOUR, false), Ok(Outcome::Complete));
    let round = " Execute Monitor".repeat(bench.sent.len());
    assert_eq!(bench.states(), format!("ReceiveCmd Parse{round} Complete"));
    assert_eq!(bench.sent.last().unwrap(), "return_home");
    assert_eq!((bench.plant.input(1), bench.plant.discrete(0)), (Ok(0), Ok(false)), "home, and at rest");
    assert!(bench.plant.discrete(33).unwrap(), "valve 4 is photographed; valve 2 was passed again since");
    assert!(bench.plant.input(0).unwrap() > 200, "the reserve was kept");
}

#[test]
fn a_dry_run_ends_with_the_verified_plan() {
    let mut bench = Bench::new(Vec::new());
    assert_eq!(bench.run(TOUR, true), Ok(Outcome::Planned));
    assert!(bench.sent.is_empty());
    let forecast = bench.words.last().unwrap().forecast.as_ref().unwrap();
    assert!(forecast.table(&bench.site).contains("  battery "));
}

#[test]
fn what_changes_under_way_is_planned_around_once() {
    // Through valve 3 it is no longer than around; the fire begins when the robot is under way to the gallery.
    let go = "go_to place=gallery then go_to place=valve_3 and photograph valve=valve_4 then return_home";
    let mut bench = Bench::new(vec![(1, Event::Heat(1500))]);
    let result = bench.run(go, false).unwrap_err();
    assert!(
        bench.said("with the present readings, step 1 go_to place=valve_3 would be at valve_3"),
        "{:#?}",
        bench.words
    );
    assert!(result.0.contains("and no other plan"), "valve 3 itself was asked for: {result}");
    assert_eq!(bench.sent.last().unwrap(), "halt", "the safe command");
    // A step that the guard refuses once is planned anew; a second time is one too many.
    let mut bench = Bench::new(vec![(2, Event::Refuse)]);
    assert_eq!(bench.run(TOUR, false), Ok(Outcome::Complete));
    assert!(bench.states().contains("Execute Adjust Execute Monitor"), "{}", bench.states());
    let mut bench = Bench::new(vec![(2, Event::Refuse), (4, Event::Refuse)]);
    let failure = bench.run(TOUR, false).unwrap_err();
    assert!(failure.0.contains("a mission is replanned once"), "{failure}");
    assert_eq!(bench.sent.last().unwrap(), "halt");
}

#[test]
fn a_step_that_does_not_end_fails_in_its_time() {
    let mut bench = Bench::new(vec![(1, Event::Halt)]);
    let failure = bench.run("go_to place=valve_1 then return_home", false).unwrap_err();
    assert!(bench.said("was not done within"), "{:#?}", bench.words);
    assert!(failure.0.contains("place reads 255, which is no place of the map"), "{failure}");
    assert!(bench.now_us < 600_000_000, "{} s", bench.now_us / 1_000_000);
}

#[test]
fn a_step_that_the_plant_broke_off_is_not_done() {
    let mut bench = Bench::new(Vec::new());
    assert_eq!(bench.run(TOUR, false), Ok(Outcome::Complete));
    let photograph =
        |bench: &Bench| bench.sent.iter().position(|sent| sent.starts_with("photograph")).unwrap();
    let first = photograph(&bench);
    let mut bench = Bench::new(vec![(first + 1, Event::Lose)]);
    assert_eq!(bench.run(TOUR, false), Ok(Outcome::Complete));
    assert!(bench.said("the plant was lost while step"), "{:#?}", bench.words);
    assert_eq!(bench.sent[first], bench.sent[first + 1], "done again: {:?}", bench.sent);
    // A robot that was driving stands somewhere on the way.
    let mut bench = Bench::new(vec![(1, Event::Lose)]);
    let failure = bench.run(TOUR, false).unwrap_err();
    assert!(
        failure.0.contains("the plant was lost while step 1") && failure.0.contains("no place"),
        "{failure}"
    );
    assert_eq!((bench.sent.len(), bench.sent.last().unwrap().as_str()), (2, "halt"));
}

#[test]
fn another_policy_holds_for_the_rest_of_a_mission() {
    let mut bench = Bench::new(Vec::new());
    let home = bench.decide("return_home").unwrap();
    bench.at.push((2, Event::Reload(80.0, Box::new(home))));
    let failure = bench.run(TOUR, false).unwrap_err();
    assert!(failure.0.contains("below its limit of 80 %"), "{failure}");
    assert_eq!(
        (bench.sent.len(), bench.sent.last().unwrap().as_str()),
        (3, "return_home"),
        "its safe command"
    );
}

#[test]
fn what_the_guard_refuses_for_the_moment_is_waited_out_and_costs_no_replan() {
    let mut bench = Bench::new(vec![(2, Event::RefuseForNow(100)), (4, Event::Refuse)]);
    assert_eq!(bench.run(TOUR, false), Ok(Outcome::Complete));
    let waits = bench.words.iter().filter(|word| word.text.starts_with("waiting: step 3")).count();
    assert!(waits == 1 && bench.refusals == 0, "{} left, {:#?}", bench.refusals, bench.words);
    // Not for ever, and the safe command goes out at the end.
    let mut bench = Bench::new(vec![(2, Event::RefuseForNow(u32::MAX))]);
    let failure = bench.run(TOUR, false).unwrap_err();
    assert!(failure.0.ends_with("the rule controller is in control, for 120 s"), "{failure}");
    assert_eq!((bench.sent.len(), bench.sent.last().unwrap().as_str()), (3, "halt"));
    assert!(bench.said("the safe command was sent"), "{:#?}", bench.words);
}

#[test]
fn a_rule_that_breaks_under_way_stops_the_machine_there() {
    let go = "go_to place=gallery then go_to place=valve_3 then return_home";
    let mut bench = Bench::new(vec![(2, Event::Heat(1500))]);
    let failure = bench.run(go, false).unwrap_err();
    assert!(bench.said("would be at valve_3 while boiler_temperature > 80"), "{:#?}", bench.words);
    assert!(bench.said("the safe command was sent"), "{:#?}", bench.words);
    assert_eq!(bench.sent[1..3], ["go_to place=valve_3", "halt"]);
    assert_eq!(bench.plant.input(1), Ok(255), "on the way: it never got there");
    assert!(failure.0.contains("no place of the map"), "{failure}");
}

#[test]
fn a_hold_pauses_a_stop_ends_and_an_operators_command_outranks() {
    let mut bench = Bench::new(vec![(2, Event::Hold)]);
    assert_eq!(bench.run(TOUR, false), Ok(Outcome::Complete));
    assert!(bench.said("waiting: the mode is Held"));
    let mut bench = Bench::new(vec![(2, Event::Stop)]);
    let failure = bench.run(TOUR, false).unwrap_err();
    assert_eq!(
        (failure.0.as_str(), bench.sent.len()),
        ("the mode is Stopping", 2),
        "the guard sends the safe command itself"
    );
    let mut bench = Bench::new(vec![(2, Event::Operator)]);
    let failure = bench.run(TOUR, false).unwrap_err();
    assert_eq!((failure.0.as_str(), bench.sent.len()), ("a command of the operator has taken over", 2));
}

#[test]
fn what_is_not_understood_or_not_safe_moves_nothing() {
    for (instruction, why) in [
        ("photograph valve=valve_2 and sing", "\"sing\": no command of the site answers this"),
        ("photograph valve=valve_2 and is it open?", "is a question"),
        ("open_valve valve=valve_5, return_home", "above the 45 Nm it has to keep"),
        ("halt", "cannot be part of a plan"),
    ] {
        let mut bench = Bench::new(Vec::new());
        let failure = bench.run(instruction, false).unwrap_err();
        assert!(failure.0.contains(why), "{instruction}: {failure}");
        assert!(bench.sent.is_empty(), "{instruction}");
    }
}
