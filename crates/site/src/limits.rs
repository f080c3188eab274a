//! Every bound of a site, in one place. A site file that goes past one is refused with the bound's name.

/// Tags a site may declare; also the width of the quality and presence masks.
pub const TAGS_MAX: usize = 64;
/// Commands a site may declare, `none` included.
pub const COMMANDS_MAX: usize = 64;
/// Arguments of one command.
pub const ARGUMENTS_MAX: usize = 8;
/// Choices of one enum argument.
pub const CHOICES_MAX: usize = 64;
/// Bytes of one bounded-string argument.
pub const TEXT_ARGUMENT_BYTES_MAX: usize = 64;
/// Bytes of an operator's sentence.
pub const SENTENCE_BYTES_MAX: usize = 512;
/// Bytes of a reason carried in a frame or record; longer reasons are cut at a character boundary.
pub const REASON_BYTES_MAX: usize = 160;
/// Bytes of a name: tag, command, argument, choice.
pub const NAME_BYTES_MAX: usize = 48;
/// Limits a site may declare.
pub const LIMITS_MAX: usize = 128;
/// Rules a site may declare.
pub const RULES_MAX: usize = 64;
/// Comparisons in one rule's condition.
pub const CONDITION_TERMS_MAX: usize = 8;
/// Notes (policy sentences) in the prompt.
pub const NOTES_MAX: usize = 16;
/// Bytes of a site file.
pub const SITE_FILE_BYTES_MAX: usize = 256 * 1024;
/// Register writes that one command may cause.
pub const WRITES_MAX: usize = 8;

const _: () = assert!(TAGS_MAX <= u64::BITS as usize, "tag masks are u64");
const _: () = assert!(COMMANDS_MAX <= u16::MAX as usize);
