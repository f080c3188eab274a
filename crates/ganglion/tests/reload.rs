//! Another policy, and another variant of the model, in a run that goes on.

mod common;
use common::*;
use std::fs;

fn policy_line(run: &mut Run, what: &str) -> String {
    let line = run.wait_for(what, |line| line["kind"] == "policy");
    line["reason"].as_str().unwrap().to_owned()
}

#[test]
fn invariant_31_a_policy_is_taken_over_or_refused_while_running() {
    let site = TestSite::new("hvac");
    let tape = site.path().join("tape");
    let mut run = site.run(&["--record", text(&tape)]);
    run.wait_for_execute();
    let ask = |verdict: &str| {
        let answer = decide(&site, "set the kitchen to 21 degrees");
        assert_eq!(answer["verdict"], verdict, "{answer}");
    };
    ask("approved");
    // By hand: a lower limit.
    site.replace("lo = 15\nhi = 26", "lo = 15\nhi = 20");
    run.type_line("!reload");
    let said = policy_line(&mut run, "the policy is taken over");
    assert!(said.starts_with("policy ") && said.contains(" in place of "), "{said}");
    ask("rejected");
    // The same again.
    run.type_line("!reload");
    assert_eq!(policy_line(&mut run, "nothing"), "nothing has changed: the site file is as it was");
    // A file that is no site: everything stays, and the reason is said.
    let good = fs::read_to_string(site.file()).unwrap();
    fs::write(site.file(), good.replace("hi = 20", "hi = \"high\"")).unwrap();
    run.type_line("!reload");
    let said = policy_line(&mut run, "the refusal");
    assert!(
        said.starts_with("the policy stays as it was; the new one is refused: ") && said.contains("hi"),
        "{said}"
    );
    ask("rejected");
    // Even a brain that has to start anew does so, from the text that holds.
    let brain = run.brain();
    signal("KILL", brain);
    run.wait_for("another brain", |line| {
        line["kind"] == "brain" && line["reason"].as_str().is_some_and(|reason| reason.contains("ready"))
    });
    // More than a policy: refused. Then, as a service is told: by SIGHUP.
    fs::write(site.file(), good.replace("name = \"hvac\"", "name = \"other\"")).unwrap();
    signal("HUP", run.id());
    let said = policy_line(&mut run, "the second refusal");
    assert!(said.contains("restart to take it over"), "{said}");
    fs::write(site.file(), good.replace("hi = 20", "hi = 24")).unwrap();
    signal("HUP", run.id());
    assert!(policy_line(&mut run, "the second policy").contains(" in place of "));
    eventually("the model counts again", || {
        let status = http(site.http, "GET", "/v1/status", "").1;
        status["breaker"] == "closed" && status["brain"] == "ready"
    });
    ask("approved");
    run.press_ctrl_c();
    assert!(run.end().0.success());
    let texts = fs::read_dir(site.audit().join("sites")).unwrap().count();
    assert_eq!(texts, 3, "each text that held is kept");
    let log = ganglion(&["audit", "show", text(&site.audit())]).out;
    assert_eq!(log.matches("\"kind\":\"policy\"").count(), 5, "{log}");
    assert!(ganglion(&["audit", "verify", text(&site.audit())]).code == 0);
    // And all of it can be run again.
    let report = ganglion(&["replay", text(&tape), "--json"]).json();
    assert_eq!((&report["same"], &report["policies"]), (&true.into(), &2.into()), "{report}");
}

#[test]
fn missions_and_deadlines_follow_the_policy_that_holds() {
    let site = TestSite::new("inspection");
    let mut run = site.run(&["--dry-run"]);
    run.wait_for_execute();
    let mission = |run: &mut Run, what: &str| {
        run.type_line("mission: photograph valve 1, then return home");
        run.wait_for(what, |line| {
            line["kind"] == "mission" && line["text"].as_str().is_some_and(|text| text.contains(what))
        });
    };
    mission(&mut run, "the plan is verified");
    site.replace("on = \"battery\"\nlo = 15", "on = \"battery\"\nlo = 95");
    site.set("deadline_ms = ", "deadline_ms = 3500");
    run.type_line("!reload");
    policy_line(&mut run, "the policy is taken over");
    eventually("the new deadline", || decide(&site, "go to valve 1")["deadline_ms"] == 3500.0);
    mission(&mut run, "below its limit of 95 %");
}

#[test]
fn another_variant_takes_over_by_temperature_and_no_event_is_left_unanswered() {
    let site = TestSite::new("hvac");
    let nano = repository().join("models/nano/nano.gguf");
    // The same model in fewer bits: other weights, other kernels, answers that may differ.
    let small = site.path().join("small.gguf");
    let quantised = ganglion(&["model", "quantize", text(&nano), text(&small), "--type", "q4_0"]);
    assert_eq!(quantised.code, 0, "{quantised:?}");
    assert!(fs::metadata(&small).unwrap().len() < fs::metadata(&nano).unwrap().len());
    let variant = "[[model.variant]]\nname = \"small\"\npath = \"small.gguf\"\n[model.switch]\n\
                   temperature_c = [80, 60]\ndwell_s = 1\n[guard]";
    site.replace("[guard]", variant);
    site.replace("[http]", "[record]\nfolder = \"tape\"\nkeep_text = true\n[http]");
    let host = site.path().join("host");
    let zone = host.join("sys/class/thermal/thermal_zone0");
    fs::create_dir_all(&zone).unwrap();
    fs::write(zone.join("temp"), "45000\n").unwrap();
    let tape = site.path().join("tape");
    let mut run = site.run(&["--host-root", text(&host)]);
    run.wait_for_execute();
    let first = run.brain();
    // Somebody asks all the time, and looks where the answers come from.
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (http_port, flag) = (site.http, std::sync::Arc::clone(&stop));
    let asker = std::thread::spawn(move || {
        let mut answers = Vec::new();
        let mut number = 0;
        while !flag.load(std::sync::atomic::Ordering::Acquire) {
            number += 1;
            // A different number each time, so that no answer comes from memory.
            let body = format!("{{\"text\": \"set the hall fan to {} percent\"}}", number % 97);
            answers.push(http(http_port, "POST", "/v1/decide", &body));
        }
        answers
    });
    let switched = |run: &mut Run, name: &str| {
        let wanted = format!("variant {name} answers from now on");
        run.wait_for("the variant", |line| {
            line["kind"] == "brain" && line["reason"].as_str().is_some_and(|reason| reason.contains(&wanted))
        });
    };
    fs::write(zone.join("temp"), "85000\n").unwrap();
    switched(&mut run, "small");
    eventually("the first brain is ended", || !is_alive(first));
    let second = run.brain();
    fs::write(zone.join("temp"), "50000\n").unwrap();
    switched(&mut run, "main");
    eventually("the second brain is ended", || !is_alive(second));
    stop.store(true, std::sync::atomic::Ordering::Release);
    let answers = asker.join().unwrap();
    assert!(answers.len() > 10, "{}", answers.len());
    for (status, answer) in &answers {
        let by_model = matches!(answer["outcome"].as_str(), Some("model" | "cache"));
        assert!(*status == 200 && by_model, "{answer}");
    }
    run.press_ctrl_c();
    let (status, lines) = run.end();
    assert!(status.success());
    let lost =
        lines.iter().any(|line| line["kind"] == "brain" && line["reason"].to_string().contains("ended"));
    assert!(!lost, "the guard never lost its brain");
    let said: Vec<_> = lines.iter().filter_map(|line| line["reason"].as_str()).collect();
    for name in ["small", "main"] {
        let place = |what: &str| said.iter().position(|reason| reason.ends_with(&format!("{name} {what}")));
        let (started, answers) = (place("is being started"), place("answers from now on"));
        assert!(started.is_some() && started < answers, "{said:?}");
    }
    // Each variant's decisions come out again of its own file.
    let models = ["--model", text(&nano), "--model", text(&small)];
    let report = ganglion(&[["replay", text(&tape), "--json"].as_slice(), &models].concat()).json();
    assert_eq!((&report["same"], &report["model"]["without_model"]), (&true.into(), &0.into()), "{report}");
    assert!(report["model"]["same"].as_u64().is_some_and(|same| same > 10), "{report}");
}
