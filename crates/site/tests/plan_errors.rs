//! What a user reads when what a site says about plans is wrong. Refresh with `UPDATE_EXPECT=1`.

use expect_test::{Expect, expect};
use ganglion_site::Site;
use std::path::Path;

const HEAD: &str = "name = \"t\"\n[model]\npath = \"m.gguf\"\n";

fn check(body: &str, expect: &Expect) {
    let message = match Site::parse(&format!("{HEAD}{body}"), Path::new("site.toml")) {
        Ok(_) => "accepted".to_string(),
        Err(error) => error.to_string(),
    };
    expect.assert_eq(&message);
}

const PLANT: &str = "[[tag]]\nname = \"battery\"\nunit = \"%\"\nrange = [0, 100]\n[[tag]]\nname = \"place\"\nrange = [0, 9]\n\
    [[tag]]\nname = \"door\"\nkind = \"bool\"\n";

#[test]
fn plans() {
    check(
        &format!(
            "{PLANT}[plan]\nalways = [\"batery >= 20\", \"battery >= 20 for 5 s\"]\nend = 3\ntime_max = \"5 C\"\ninsert = [{{ action = \"none\" }}]\n"
        ),
        &expect![[r#"
            site.toml:15: [plan] always: expected the name of a tag (did you mean battery?), found batery
            site.toml:15: [plan] always: expected a condition over tags as they are now, for example "battery >= 20", without for, within or since, found battery >= 20 for 5 s
            site.toml:16: [plan] end: expected a condition over tags as they are now, for example "battery >= 20", found 3
            site.toml:17: [plan] time_max: expected a number in s, or in a unit of the same quantity, found "5 C"
            site.toml:18: [plan] insert: expected commands that have a plan themselves, found [{ action = "none" }]"#]],
    );
    check(
        &format!(
            "{PLANT}[[command]]\nname = \"go\"\narguments = [{{ name = \"to\", choices = [\"a\", \"c\"] }}]\n\
             plan = {{ moves = \"to\", takes = 3, effects = [{{ tag = \"batery\", per_min = 1 }}, {{ tag = \"battery\" }}] }}\n\
             [[command]]\nname = \"work\"\nplan = {{ needs = \"{{to}} == yes\", takes = \"ages\", efects = [] }}\n\
             [plan]\n[plan.map]\ntag = \"place\"\nm_per_min = [0, 2]\n\
             places = [{{ name = \"a\", number = 1, at = [0, 0] }}, {{ name = \"b\", number = 1, at = [3] }}]\nroads = [[\"a\", \"a\"]]\n"
        ),
        &expect![[r#"
            site.toml:17: command go, plan, moves: expected a sound [plan.map] before a command can be somewhere, found "to"
            site.toml:17: command go, plan, effect number 1, tag: expected the name of a tag (did you mean battery?), found "batery"
            site.toml:17: command go, plan, effect number 2, set: expected one of set, add, during, per_s, per_min and per_m, found nothing
            site.toml:20: command work, plan, takes: expected seconds, [lo, hi], a time such as "2 min", or the name of an argument that is a time, found "ages"
            site.toml:20: command work, plan, needs: expected in braces the name of one argument with choices, for example "{valve}_open == yes", found "{to} == yes"
            site.toml:20: command work, plan: expected one of at, moves, takes, needs, done, timeout, effects (did you mean effects?), found unknown field efects
            site.toml:24: [plan.map] m_per_min: expected a number, or [lo, hi] with lo ≤ hi, above 0, found [0, 2]
            site.toml:25: place b, number: expected another number for each place, in the range of the map's tag, found 1
            site.toml:25: place b, at: expected [x, y] in metres, found [3]
            site.toml:26: road number 1: expected a list of ["place", "place"] or { between = ["place", "place"], … }, two different places of the map, found ["a", "a"]"#]],
    );
    check(
        "[[command]]\nname = \"go\"\nplan = { takes = 3 }\n",
        &expect!["site.toml:4: [plan]: expected a table [plan], since a command has a plan, found nothing"],
    );
    check(
        &format!(
            "{PLANT}[[command]]\nname = \"go\"\nplan = {{ takes = [3, 1], effects = [{{ tag = \"battery\", set = 1, until = 3 }}, {{ tag = \"battery\", add = 1 }}, {{ tag = \"door\", per_m = 1 }}] }}\n[plan]\nbudget_ms = 0\n"
        ),
        &expect![[r#"
            site.toml:16: command go, plan, takes: expected seconds, [lo, hi], a time such as "2 min", or the name of an argument that is a time, found [3, 1]
            site.toml:16: command go, plan, effect number 1, until: expected until only with per_s, per_min or per_m, found 3
            site.toml:16: command go, plan, effect number 2, tag: expected one effect per tag of a command, and none on the map's own tag, found { tag = "battery", add = 1 }
            site.toml:16: command go, plan, effect number 3, per_m: expected per_m only in a command that moves, found { tag = "door", per_m = 1 }
            site.toml:18: [plan] budget_ms: expected a whole number from 1 to 10000, found 0"#]],
    );
}
