//! Commands as registers, also of a site that nobody checked: what does not fit is refused with a sentence.

mod common;
use common::*;
use ganglion_guard::*;
use ganglion_site::limits::WRITES_MAX;
use ganglion_site::{Command, RegisterWrite, Site, Value, WriteSource, WriteTarget};

fn write(site: &Site, command: &Command) -> Result<Vec<RawWrite>, String> {
    let writes = register_writes(site, command).map_err(|reason| reason.as_str().to_owned())?;
    Ok(writes.iter().copied().collect())
}

fn warm(site: &Site, celsius: f64) -> Command {
    let mut warm = command(site, r#"{"action":"set_temperature","celsius":20}"#);
    warm.values[0] = Value::Number(celsius);
    warm
}

#[test]
fn values_are_scaled_and_addresses_selected() {
    let site = site();
    let written = write(&site, &warm(&site, 21.5)).unwrap();
    let expected = RawWrite { target: WriteTarget::Holding, address: 0, raw: 215, carries: Some((0, 21.5)) };
    assert_eq!(written, [expected]);
    let fan = command(&site, r#"{"action":"set_fan","room":"office","percent":40}"#);
    let written = write(&site, &fan).unwrap();
    let expected = RawWrite { target: WriteTarget::Holding, address: 21, raw: 40, carries: Some((1, 40.0)) };
    assert_eq!(written, [expected], "the office is the second room");
}

#[test]
fn what_is_beyond_a_register_is_refused_whatever_was_declared() {
    let mut site = site();
    let ends =
        [(3276.7, Some(32767)), (3276.8, None), (-3276.8, Some(32768)), (-3276.9, None), (f64::NAN, None)];
    for (celsius, raw) in ends {
        let found = write(&site, &warm(&site, celsius));
        match raw {
            Some(raw) => assert_eq!(found.unwrap()[0].raw, raw, "{celsius}"),
            None => {
                assert!(found.unwrap_err().contains("register counts do not fit a register"), "{celsius}")
            }
        }
    }
    // A coil of a number.
    site.commands[0].writes[0].target = WriteTarget::Coil;
    site.commands[0].writes[0].source = WriteSource::Argument { index: 0, scale: 1.0 };
    for (celsius, fits) in [(0.0, true), (1.0, true), (2.0, false), (-1.0, false)] {
        let found = write(&site, &warm(&site, celsius));
        assert_eq!(found.is_ok(), fits, "{celsius}");
        assert!(fits || found.unwrap_err().contains("a coil takes 0 or 1"));
    }
}

#[test]
fn as_many_writes_as_there_may_be_and_no_more() {
    let mut site = site();
    let one = site.commands[2].writes[0].clone();
    site.commands[2].writes =
        (0..WRITES_MAX).map(|i| RegisterWrite { address: i as u16, ..one.clone() }).collect();
    let off = command(&site, r#"{"action":"all_off"}"#);
    let written = write(&site, &off).unwrap();
    assert_eq!(
        written.iter().map(|w| w.address).collect::<Vec<_>>(),
        (0..WRITES_MAX as u16).collect::<Vec<_>>()
    );
    site.commands[2].writes.push(one);
    let refused = write(&site, &off).unwrap_err();
    assert_eq!(refused, format!("all_off has more than {WRITES_MAX} register writes"));
}

#[test]
fn an_address_or_a_selection_that_does_not_exist_is_refused() {
    let mut site = site();
    let mut fan = command(&site, r#"{"action":"set_fan","room":"office","percent":40}"#);
    site.commands[1].writes[0].address = u16::MAX;
    assert_eq!(write(&site, &fan).unwrap_err(), "set_fan: register address 65535 + 1 overflows");
    fan.values[0] = Value::Integer(0);
    let refused = write(&site, &fan).unwrap_err();
    assert_eq!(refused, "set_fan: the register is selected by an argument that is no choice");
    let mut unknown = fan;
    unknown.verb = 77;
    assert_eq!(write(&site, &unknown).unwrap_err(), "command number 77 does not exist");
    let absent =
        Command { values: [Value::Absent; ganglion_site::limits::ARGUMENTS_MAX], ..warm(&site, 1.0) };
    assert_eq!(write(&site, &absent).unwrap_err(), "set_temperature: argument 0 has no number to write");
}
