//! One tag: its values read from and shown to people; names looked up.

use crate::error::TagValueError;
use crate::limits::QUOTE_BYTES_MAX;
use crate::number::shortest;
use crate::parse::condition::parse_value;
use crate::prompt::{push_tag_value, push_unit};
use crate::site::{Site, Tag, TagKind};

impl Tag {
    /// A value for people: decimals as the site has them, `yes`/`no` for a bool, with the unit.
    pub fn show(&self, value: f64) -> String {
        let mut out = String::new();
        push_tag_value(&mut out, self, value);
        push_unit(&mut out, &self.unit);
        out
    }

    /// A value written by a person: a number in the tag's range, with or without the tag's unit behind it, or `yes` and
    /// `no` (`true` and `false`) for a bool.
    ///
    /// # Errors
    /// [`TagValueError`] when it is neither, has another unit, or lies outside the range.
    pub fn parse_value(&self, text: &str) -> Result<f64, TagValueError> {
        parse_value(text, self).ok_or_else(|| TagValueError {
            tag: self.name.clone(),
            expected: match self.kind {
                TagKind::Bool => "yes or no".into(),
                TagKind::Number => {
                    let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
                    format!("a number from {} to {}{unit}", shortest(self.range_lo), shortest(self.range_hi))
                }
            },
            found: if text.trim().is_empty() {
                "nothing".into()
            } else {
                text.chars().take(QUOTE_BYTES_MAX).collect()
            },
        })
    }
}

impl Site {
    /// The index of the tag of this name.
    pub fn find_tag(&self, name: &str) -> Option<usize> {
        self.tags.iter().position(|tag| tag.name == name)
    }

    /// The index of the command of this name, `none` included.
    pub fn find_command(&self, name: &str) -> Option<usize> {
        self.commands.iter().position(|command| command.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_hand() {
        let text = "name=\"t\"\n[model]\npath=\"m\"\n[[tag]]\nname=\"heat\"\nunit=\"C\"\nrange=[-20, 60]\ndecimals=1\n\
                    [[tag]]\nname=\"door\"\nkind=\"bool\"\n";
        let site = Site::parse(text, "site.toml".as_ref()).unwrap_or_else(|error| panic!("{error}"));
        let heat = &site.tags[site.find_tag("heat").unwrap()];
        assert_eq!(heat.parse_value(" 21.5 C "), Ok(21.5));
        assert_eq!(heat.parse_value("-3C"), Ok(-3.0));
        assert_eq!(heat.show(21.04), "21 C");
        for wrong in ["", "NaN", "inf", "61", "21 K", "21 C C", "1e1", "yes", "--3", "21 and"] {
            assert!(heat.parse_value(wrong).is_err(), "{wrong}");
        }
        let error = heat.parse_value("21 K").unwrap_err().to_string();
        assert_eq!(error, "tag heat: expected a number from -20 to 60 C, found 21 K");
        let door = &site.tags[1];
        assert_eq!((door.parse_value("yes"), door.parse_value("false")), (Ok(1.0), Ok(0.0)));
        assert!(door.parse_value("1").is_err());
        assert_eq!(door.show(1.0), "yes");
    }
}
