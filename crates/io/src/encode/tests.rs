use super::*;
use ganglion_guard::register_writes;
use ganglion_site::{
    ArgumentKind, ArgumentSpec, Command, CommandSpec, RegisterWrite, Value, WriteSource, WriteTarget,
};
use proptest::prelude::*;
use std::path::Path;

fn hvac() -> Site {
    Site::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/hvac")).unwrap()
}

fn command(site: &Site, json: &str) -> Command {
    Command::from_json(site, json).unwrap()
}

/// A site whose only command writes its one argument, of `kind`, to holding register 7.
fn writing(kind: ArgumentKind, target: WriteTarget, scale: f64) -> Site {
    let argument = ArgumentSpec { name: "x".to_owned(), kind, unit: String::new(), default: None };
    let source = WriteSource::Argument { index: 0, scale };
    let write = RegisterWrite { target, address: 7, select: None, source };
    let spec = CommandSpec {
        name: "set".to_owned(),
        about: String::new(),
        arguments: vec![argument],
        writes: vec![write],
        announce: None,
    };
    Site { commands: vec![spec], ..hvac() }
}

fn encoded(site: &Site, value: Value) -> Result<u16, String> {
    let mut values = [Value::Absent; ganglion_site::limits::ARGUMENTS_MAX];
    values[0] = value;
    register_writes(site, &Command { verb: 0, values })
        .map(|writes| writes.iter().next().unwrap().raw)
        .map_err(|reason| reason.as_str().to_owned())
}

const NUMBER: ArgumentKind = ArgumentKind::Number { lo: 0.0, hi: 1.0, step: 0.1 };

#[test]
fn the_example_commands_become_these_registers() {
    let site = hvac();
    let check = |json: &str, expected: &[(u16, u16)]| {
        let writes = register_writes(&site, &command(&site, json)).unwrap();
        let found: Vec<_> = writes.iter().map(|w| (w.address, w.raw)).collect();
        assert_eq!(found, expected, "{json}");
        assert!(writes.iter().all(|w| w.target == WriteTarget::Holding));
    };
    check(r#"{"action":"set_temperature","room":"hall","celsius":21.5}"#, &[(2, 215)]);
    check(r#"{"action":"set_mode","mode":"cool"}"#, &[(10, 2)]);
    check(r#"{"action":"set_fan","room":"office","percent":35}"#, &[(21, 35)]);
    check(r#"{"action":"all_off"}"#, &[(10, 0), (31, 1)]);
    check(r#"{"action":"none"}"#, &[]);
}

#[test]
fn what_does_not_fit_is_refused_with_a_reason() {
    let integer = writing(ArgumentKind::Integer { lo: 0, hi: 9 }, WriteTarget::Holding, 1.0);
    for (value, fits) in
        [(32_767, true), (32_768, false), (-32_768, true), (-32_769, false), (i64::MAX, false)]
    {
        assert_eq!(encoded(&integer, Value::Integer(value)).is_ok(), fits, "{value}");
    }
    let number = writing(NUMBER, WriteTarget::Holding, 0.1);
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 3276.8, 1e300, -3276.86] {
        assert!(encoded(&number, Value::Number(value)).is_err(), "{value}");
    }
    let coil = writing(ArgumentKind::Bool, WriteTarget::Coil, 1.0);
    assert_eq!(encoded(&coil, Value::Bool(true)).unwrap(), 1);
    assert!(encoded(&coil, Value::Integer(2)).is_err());
    assert!(encoded(&coil, Value::Absent).is_err());
    let error = encoded(&number, Value::Number(5000.0)).unwrap_err();
    assert_eq!(error, "set.x: 50000 register counts do not fit a register");
}

#[test]
fn an_address_past_the_last_is_refused() {
    let mut site = hvac();
    site.commands[0].writes[0].address = u16::MAX;
    let json = r#"{"action":"set_temperature","room":"office","celsius":20}"#;
    assert!(register_writes(&site, &command(&site, json)).is_err());
    assert!(register_writes(&site, &Command { verb: 999, ..site.safe }).is_err());
}

proptest! {
    /// Whatever the bits, a register is either refused or reads back as the value, to half a step.
    #[test]
    fn no_value_wraps(bits: u64, scale in prop::sample::select(vec![1.0, 0.5, 0.1, 0.05, 0.01, 0.02, 10.0])) {
        let value = f64::from_bits(bits);
        if let Ok(raw) = encoded(&writing(NUMBER, WriteTarget::Holding, scale), Value::Number(value)) {
            let error = (decode_register(raw, scale) - value).abs();
            prop_assert!(error <= scale * 0.500_001, "{value} read back with error {error}");
        }
    }

    #[test]
    fn every_register_survives_a_round_trip(raw: u16, scale in prop::sample::select(vec![1.0, 0.5, 0.1, 0.02])) {
        let value = Value::Number(decode_register(raw, scale));
        prop_assert_eq!(encoded(&writing(NUMBER, WriteTarget::Holding, scale), value).unwrap(), raw);
    }

    #[test]
    fn any_text_for_a_tag_is_a_value_in_range_or_an_error(text in ".{0,40}") {
        let site = hvac();
        for name in ["kitchen_temperature", "office_occupied", "power_price"] {
            if let Ok((index, value)) = parse_tag(&site, &format!("{name}={text}")) {
                let tag = &site.tags[index];
                prop_assert!(value >= tag.range_lo && value <= tag.range_hi);
            }
        }
        let _ = parse_tag(&site, &text);
    }
}

#[test]
fn tag_values_take_their_own_unit_and_no_other() {
    let site = hvac();
    let check = |text: &str, expected: f64| {
        assert_eq!(parse_tag(&site, text).map(|(_, value)| value).ok(), Some(expected), "{text}");
    };
    check("kitchen_temperature=21.5", 21.5);
    check("kitchen_temperature=21.5C", 21.5);
    check("kitchen_temperature = -3 °C", -3.0);
    check("power_price=33 ct/kWh", 33.0);
    check("office_occupied=yes", 1.0);
    check("office_occupied=false", 0.0);

    let refuse = |text: &str, expected: &str| {
        assert_eq!(parse_tag(&site, text).unwrap_err().to_string(), expected);
    };
    refuse(
        "kitchen_temperature=70F",
        "tag `kitchen_temperature`: found `70F`, expected a number from -20 to 60 in C",
    );
    refuse(
        "kitchen_temperature=61",
        "tag `kitchen_temperature`: found `61`, expected a number from -20 to 60 in C",
    );
    refuse(
        "kitchen_temperature=NaN",
        "tag `kitchen_temperature`: found `NaN`, expected a number from -20 to 60 in C",
    );
    refuse("office_occupied=maybe", "tag `office_occupied`: found `maybe`, expected yes or no");
    refuse(
        "attic=1",
        "unknown tag `attic`: the site has kitchen_temperature, office_temperature, hall_temperature, \
         office_occupied, power_price",
    );
    refuse("warm", "`warm`: expected NAME=VALUE, for example kitchen_temperature=-20C");
    assert!(parse_tag(&site, "power_price=inf").is_err());
    assert!(parse_tag(&site, "power_price=").is_err());
}

#[test]
fn json_values_have_the_tags_type() {
    let site = hvac();
    let (number, truth) = (&site.tags[0], &site.tags[3]);
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(tag_from_json(number, &json("21.5")).unwrap(), 21.5);
    assert_eq!(tag_from_json(number, &json("\"21.5C\"")).unwrap(), 21.5);
    assert_eq!(tag_from_json(truth, &json("true")).unwrap(), 1.0);
    for (tag, bad) in [(number, "true"), (number, "null"), (number, "[1]"), (number, "1e9"), (truth, "1")] {
        assert!(tag_from_json(tag, &json(bad)).is_err(), "{bad}");
    }
}
