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

/// Problems reported for one site file; the rest only repeats them.
pub const PROBLEMS_MAX: usize = 100;
/// Bytes of a problem's quotation from the file.
pub const QUOTE_BYTES_MAX: usize = 60;
/// Bytes of a command's description.
pub const ABOUT_BYTES_MAX: usize = 160;
/// Bytes of a note.
pub const NOTE_BYTES_MAX: usize = 256;
/// Bytes of a rule's condition.
pub const CONDITION_BYTES_MAX: usize = 512;
/// Bytes of a path or of a `host:port` in a site file.
pub const PATH_BYTES_MAX: usize = 1024;
/// Largest magnitude of an integer argument: whole numbers up to here are exact in an f64.
pub const INTEGER_MAX: i64 = (1 << 53) - 1;
/// Largest magnitude of a tag's range or a limit.
pub const NUMBER_MAX: f64 = 1e12;
/// Steps between zero and the far end of a number argument, so that its multiples stay exact.
pub const STEPS_MAX: f64 = 1e9;
/// Decimals of a tag or of a step.
pub const DECIMALS_MAX: u8 = 6;
/// Shortest and longest guard cycle.
pub const PERIOD_MS: (u32, u32) = (1, 60_000);
/// Shortest and longest deadline, brain timeout, breaker time, staleness and poll interval.
pub const TIME_MS: (u32, u32) = (1, 3_600_000);
/// Most consecutive failures or probes that the breaker may count to.
pub const BREAKER_COUNT_MAX: u32 = 1000;
/// Most commands per minute, and at once, that a budget may allow.
pub const COMMANDS_PER_MINUTE_MAX: u32 = 60_000;
/// Largest gain and longest integral time of a PI loop.
pub const PI_MAX: f64 = 1e6;
/// Time between two steps of a PI loop where the site says nothing.
pub const PI_EVERY_MS: u32 = 1000;
/// Shortest and longest KV cache.
pub const CONTEXT_TOKENS: (usize, usize) = (64, 131_072);
/// Variants of a model beside the first choice.
pub const VARIANTS_MAX: usize = 4;
/// Shortest and longest time between two switches of the variant, in seconds.
pub const SWITCH_DWELL_S: (u32, u32) = (1, 86_400);
/// Smallest and largest recording, in MiB.
pub const RECORD_MIB: (u32, u32) = (1, 1 << 20);
/// Shortest and longest memory of the flight recorder.
pub const RECORD_MINUTES: (u32, u32) = (1, 60);
/// Most worker threads.
pub const THREADS_MAX: usize = 256;
/// Triggers a site may declare.
pub const TRIGGERS_MAX: usize = 32;
/// Least time between two events of a trigger where the site says nothing.
pub const TRIGGER_PAUSE_MS: u32 = 1000;
/// Most events that may share a forward pass.
pub const PARALLEL_MAX: usize = 8;
/// Events that share a forward pass where the site says nothing.
pub const PARALLEL: usize = 4;

const _: () = assert!(TEXT_ARGUMENT_BYTES_MAX <= u8::MAX as usize, "a value's size is one byte of a frame");
const _: () = assert!(CHOICES_MAX <= u16::MAX as usize);
