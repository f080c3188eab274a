//! `[record]`, `[[model.variant]]` and `[model.switch]`. Refresh with `UPDATE_EXPECT=1`.

use expect_test::{Expect, expect};
use ganglion_site::Site;
use std::path::Path;

const HEAD: &str = "name = \"t\"\n[model]\npath = \"m.gguf\"\n";

fn check(body: &str, expect: &Expect) {
    let text = format!("{HEAD}{body}");
    let message = match Site::parse(&text, Path::new("site.toml")) {
        Ok(_) => "accepted".to_string(),
        Err(error) => error.to_string(),
    };
    expect.assert_eq(&message);
}

#[test]
fn recording() {
    let good =
        "[record]\nfolder = \"tape\"\nkeep = \"faults\"\nkeep_text = true\nsize_mib = 10\nminutes = 2\n";
    let site = Site::parse(
        &format!("{HEAD}[guard]\nsafe = {{ action = \"none\" }}\n{good}"),
        "a/site.toml".as_ref(),
    );
    let record = site.unwrap().record.unwrap();
    assert_eq!(record.folder, Path::new("a/tape"));
    assert_eq!((record.keep, record.keep_text), (ganglion_site::RecordKeep::Faults, true));
    assert_eq!((record.size_mib, record.minutes), (10, 2));
    check(
        "[record]\nkeep_text = \"yes\"\nkeep = \"all\"\nsize_mib = 0\nminute = 1",
        &expect![[r#"
        site.toml:4: [record] folder: expected a folder, relative to the site's, found nothing
        site.toml:5: [record] keep_text: expected true or false, found "yes"
        site.toml:6: [record] keep: expected "everything" or "faults", found "all"
        site.toml:7: [record] size_mib: expected a whole number from 1 to 1048576, found 0
        site.toml:8: [record]: expected one of folder, keep, keep_text, size_mib, minutes (did you mean minutes?), found unknown field minute"#]],
    );
}

#[test]
fn variants_of_a_model() {
    let head = format!("{HEAD}[guard]\nsafe = {{ action = \"none\" }}\n");
    let good = "[[model.variant]]\nname = \"int4\"\npath = \"q4.gguf\"\n\
                [model.switch]\ntemperature_c = [85, 70]\nbattery_percent = [20, 40]\nload = [1.5, 0.8]\nmisses = 3\ndwell_s = 5\n";
    let model = Site::parse(&format!("{head}{good}"), "a/site.toml".as_ref()).unwrap().model;
    assert_eq!((model.variant_name(0), model.variant_name(1)), ("main", "int4"));
    assert_eq!(model.variant_path(1), Some(Path::new("a/q4.gguf")));
    assert_eq!(model.variant_path(2), None);
    assert_eq!(model.switch.temperature_c, Some((85.0, 70.0)));
    assert_eq!((model.switch.misses, model.switch.dwell_s), (Some(3), 5));
    check(
        "[model.switch]\nmisses = 3",
        &expect![
            "site.toml:4: [model.switch]: expected a [[model.variant]] to switch to, found [model.switch]"
        ],
    );
    check(
        "[[model.variant]]\nname = \"a\"\n[[model.variant]]\nname = \"a\"\npath = 3\n\
         [model.switch]\ntemperature_c = [70, 85]\nbattery_percent = [40, 20]\nload = 1\nheat = 1",
        &expect![[r#"
            site.toml:4: model.variant a, path: expected the path of a GGUF file, relative to the site's folder, found nothing
            site.toml:8: model.variant a, path: expected the path of a GGUF file, relative to the site's folder, found 3
            site.toml:9: [model.switch]: expected a [[model.variant]] to switch to, found [model.switch]
            site.toml:10: [model.switch] temperature_c: expected [leave, return]: two numbers from 0 up, the first one higher, found [70, 85]
            site.toml:11: [model.switch] battery_percent: expected [leave, return]: two numbers from 0 up, the first one lower, found [40, 20]
            site.toml:12: [model.switch] load: expected [leave, return]: two numbers from 0 up, the first one higher, found 1
            site.toml:13: [model.switch]: expected one of temperature_c, load, battery_percent, misses, dwell_s, found unknown field heat"#]],
    );
    check(
        "[[model.variant]]\nname = \"a\"\npath = \"b\"\n[model.switch]\ndwell_s = 3",
        &expect![
            "site.toml:7: [model.switch]: expected one of temperature_c, load, battery_percent, misses, found none of them"
        ],
    );
}
